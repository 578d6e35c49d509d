"""How numbers are written for people."""


def short(queries: float) -> str:
    """2500 -> 2.5k, 20000000 -> 20M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if queries >= size:
            return f"{queries / size:g}{suffix}"
    return f"{queries:g}"
