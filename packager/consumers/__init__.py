"""How each consumer of packages places tiles: pure functions, checked against the consumers."""
