"""How large a batch may be, so that a budget buys a method rounds enough to work as it is meant to.

A method made for millions of queries, with batches of 256, has two rounds at 5,000 queries and has learnt nothing by
then. What is compared at such a budget would be the batch size. So its batch shrinks; docs/methods.md has the rule.
"""

LEAST_ROUNDS = 50
LEAST_BATCH = 16  # images: batch norm has little to go by in fewer


def batch_that_fits(batch_size: int, batches_a_round: int, budget: int) -> int:
    """The batch size of a method that asks about so many batches in a round.

    The one given; or the largest that leaves LEAST_ROUNDS rounds, but no smaller than LEAST_BATCH; or, where that
    leaves no round at all, the one that fits once.
    """
    once, often = budget // batches_a_round, budget // (LEAST_ROUNDS * batches_a_round)
    return min(batch_size, max(LEAST_BATCH, often), max(1, once))
