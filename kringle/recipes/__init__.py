"""The recipes that come with Kringle, as YAML files."""
