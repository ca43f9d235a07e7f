"""What every other package uses: errors, files, geometry, skeletons, the command line, devices."""
