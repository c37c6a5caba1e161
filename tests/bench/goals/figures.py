"""Lines of figures, and the little statistics that they need."""

import math
import statistics

missed = []


def line(what, figure, limit=None, met=True):
    """Prints a figure; one that misses its limit is remembered for the end."""
    verdict = "" if limit is None else f"   (goal: {limit}{'' if met else ', MISSED'})"
    print(f"{what:<62} {figure}{verdict}", flush=True)
    if not met:
        missed.append(what)


def absent(what, why):
    """A row without a figure says why: nothing is printed that was not measured."""
    print(f"{what:<62} not available: {why}", flush=True)


def heading(text):
    print(f"\n{text}", flush=True)


def spread(values, unit="", digits=1):
    """Median with smallest and largest."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"


def quantile(values, share):
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def kolmogorov_smirnov(values, distribution):
    """Distance and p-value of the one-sample test, by the asymptotic series of Kolmogorov with
    Stephens' correction for finite samples (Numerical Recipes, 14.3.3)."""
    ordered, count = sorted(values), len(values)
    distance = max(
        max((index + 1) / count - distribution(value), distribution(value) - index / count)
        for index, value in enumerate(ordered)
    )
    root = math.sqrt(count)
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:
        # The series does not converge there, and the value is 1 to twelve digits.
        return distance, 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
    return distance, min(1.0, max(0.0, sum(terms)))
