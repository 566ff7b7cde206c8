"""How fast to learn at each point of a run, and how many steps a deadline leaves.

The learning rate rises linearly and then falls linearly to 0: most of what a run gains, it gains while the rate falls,
so a run that is merely cut off loses points that a shorter one, planned as such, keeps. The schedule is therefore a
function of the share of the run that is done, and the steps that are left are planned anew, from the pace measured so
far, whenever there is a deadline: each step then takes a larger share of what remains. The rate never jumps. The
alternative, time itself as the abscissa, would make two runs with the same seed differ even when there is time enough.
"""


def rate_at(fraction: float, warmup: float) -> float:
    """Factor of the peak learning rate when `fraction` (0 to 1) of the run is done; 0 at 1."""
    if fraction < warmup:
        return fraction / warmup
    return max(0.0, (1 - fraction) / (1 - warmup)) if warmup < 1 else 0.0


def affordable_steps(seconds: float, step_s: float, evaluation_s: float, every: int) -> int:
    """Steps of `step_s` seconds that fit into `seconds`, with an evaluation after every `every` and after the last."""
    usable = seconds - evaluation_s
    if usable <= 0:
        return 0
    return int(usable / max(step_s + evaluation_s / every, 1e-9))
