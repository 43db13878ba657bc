"""Schedules: their closed forms at chosen steps, and PyTorch's where it has the same ones."""

import math

import pytest

from xpconv.training import cosine, one_cycle, stairs, warmup


def factors(schedule, steps):
    return [schedule(step, steps) for step in range(steps)]


def test_cosine():
    assert cosine(0, 8) == 1
    assert cosine(4, 8) == pytest.approx(0.5)
    assert cosine(2, 8) == pytest.approx((1 + 2**-0.5) / 2)
    assert cosine(8, 8) == 0


def test_stairs():
    assert factors(stairs(), 8) == [1, 1, 1, 1, 0.1, 0.1, pytest.approx(0.01), pytest.approx(0.01)]
    assert factors(stairs([0.2], 0.5), 5) == [1, 0.5, 0.5, 0.5, 0.5]
    assert factors(stairs([]), 3) == [1, 1, 1]


def test_a_stair_is_where_its_share_says_whatever_rounding_does():
    for steps in range(1, 200):
        for tenths in range(10):
            assert factors(stairs([tenths / 10]), steps).count(1) == -(-tenths * steps // 10)


def test_warmup():
    assert factors(warmup(lambda step, steps: 1, 0.5), 6) == [0.25, 0.5, 0.75, 1, 1, 1]
    asked = []
    factors(warmup(lambda step, steps: asked.append((step, steps)) or 1, 0.4), 5)
    assert asked == [(0, 3), (0, 3), (0, 3), (1, 3), (2, 3)]
    assert factors(warmup(cosine, 0.5), 4) == pytest.approx([1 / 3, 2 / 3, 1, 0.5])
    assert factors(warmup(cosine, 0), 4) == factors(cosine, 4)
    assert factors(warmup(cosine, 0.9), 1) == [1]


def test_warmup_of_warmup():
    assert factors(warmup(warmup(lambda step, steps: 1, 0.5), 0.5), 4) == pytest.approx([1 / 6, 1 / 3, 0.5, 1])


def test_one_cycle():
    found = factors(one_cycle(0.5, start=0.2, end=0.1), 10)
    assert found[0] == pytest.approx(0.2)
    assert found[2] == pytest.approx(0.6)
    assert found[4] == pytest.approx(1)
    assert found[9] == pytest.approx(0.1)
    assert found[:5] == sorted(found[:5])
    assert found[4:] == sorted(found[4:], reverse=True)
    assert found[5] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 5)) / 2)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_a_short_training_has_a_rate_at_every_step(steps):
    for schedule in (cosine, stairs(), warmup(cosine), warmup(one_cycle()), one_cycle(), one_cycle(0)):
        assert all(0 <= factor <= 1 for factor in factors(schedule, steps))


@pytest.mark.parametrize(
    "schedule, theirs",
    [
        (cosine, lambda torch, o, n: torch.CosineAnnealingLR(o, n)),
        (stairs(), lambda torch, o, n: torch.MultiStepLR(o, [math.ceil(n / 2), math.ceil(3 * n / 4)])),
        (stairs([0.1], 0.3), lambda torch, o, n: torch.MultiStepLR(o, [math.ceil(n / 10)], 0.3)),
        (one_cycle(), lambda torch, o, n: torch.OneCycleLR(o, 1, n, cycle_momentum=False)),
        (
            one_cycle(0.4, 0.2, 0.01),
            lambda torch, o, n: torch.OneCycleLR(
                o, 1, n, pct_start=0.4, div_factor=5, final_div_factor=20, cycle_momentum=False
            ),
        ),
        (
            warmup(cosine, 0.25),
            lambda torch, o, n: torch.SequentialLR(
                o,
                [torch.LinearLR(o, 1 / (n // 4 + 1), 1, n // 4), torch.CosineAnnealingLR(o, n - n // 4)],
                [n // 4],
            ),
        ),
    ],
)
@pytest.mark.parametrize("steps", [30, 101])
@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_agrees_with_pytorch(schedule, theirs, steps):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1)
    rule = theirs(torch.optim.lr_scheduler, optimizer, steps)
    wanted = []
    for _ in range(steps):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        rule.step() if len(wanted) < steps else None
    assert factors(schedule, steps) == pytest.approx(wanted, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: stairs([0.5, 1]), ValueError, "at is 1; give a number of at least 0 and below 1"),
        (lambda: stairs(["half"]), TypeError, r"at is 'half' \(str\); give a number"),
        (lambda: stairs(factor=-1), ValueError, "factor is -1; give a finite number of at least 0"),
        (lambda: warmup(cosine, 1.5), ValueError, "share is 1.5"),
        (lambda: warmup(cosine, 5), ValueError, "share is 5; give a number of at least 0 and below 1"),
        (lambda: one_cycle(-0.1), ValueError, "rise is -0.1"),
        (lambda: one_cycle(start=math.nan), ValueError, "start is nan"),
        (lambda: one_cycle(end="0"), TypeError, "end is '0'"),
    ],
)
def test_what_is_out_of_range_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
