"""Where the fruit goes."""

from orchard.trees import Apple, Tree, oldest

LIMIT = 200


class Basket:
    """A basket takes LIMIT pieces."""

    def __init__(self) -> None:
        self.count = 0

    def fill(self, tree: Tree) -> int:
        """Puts in what the tree brings, and says how much did not fit."""
        wanted = self.count + tree.harvest()
        self.count = min(wanted, LIMIT)
        return wanted - self.count


def autumn() -> int:
    """One day's work."""
    basket = Basket()
    trees: list[Tree] = [Apple(5), Apple(40)]
    return basket.fill(oldest(trees))
