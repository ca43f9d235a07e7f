"""Modules that all packages use: errors, files, geometry, skeletons, command line, devices."""
