"""Pictures: persons with skeletons, contact sheets, charts."""
