"""Pictures: persons, sheets of persons, charts."""
