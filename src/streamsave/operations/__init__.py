"""Save and restore: the order of operations, and nothing else. What each step does lies in the layers below."""
