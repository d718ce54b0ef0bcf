"""What grows."""


class Tree:
    """Anything with fruit on it."""

    def __init__(self, age: int) -> None:
        self.age = age

    def harvest(self) -> int:
        """How many pieces of fruit one autumn brings."""
        return self.age * 10


class Apple(Tree):
    """An apple tree, the best in its middle years."""

    def harvest(self) -> int:
        return super().harvest() if self.age < 30 else 50


def oldest(trees: list[Tree]) -> Tree:
    """The tree with the most years: «größer heißt älter» ☃."""
    return max(trees, key=lambda tree: tree.age)
