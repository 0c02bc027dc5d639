"""The recipes stay as the golden files were made with them; they hold no tests."""

collect_ignore_glob = ["rivals/recipe_*.py"]
