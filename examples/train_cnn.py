"""Train one of the book's convolutional networks on handwritten digits, on any backend.

python examples/train_cnn.py                                                # 8x8 digits, no download
python examples/train_cnn.py --data mnist --network deep --backend cupy
mpiexec -n 4 python examples/train_cnn.py --data mnist --backend cupy       # on four GPUs, a quarter of each batch
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

import xpconv
from xpconv.data import Augmented, Dataset, InMemory, cutout, load, placed, shift
from xpconv.distributed import DataParallel, Ranks
from xpconv.training import (
    Checkpoints,
    ClipNorm,
    EarlyStopping,
    JsonLines,
    LossScaling,
    Progress,
    StopAtNaN,
    TensorBoard,
    WeightAverage,
    cosine,
    one_cycle,
    stairs,
    warmup,
)

OPTIMIZERS = {"adam": xpconv.Adam, "adamw": xpconv.AdamW, "nesterov": xpconv.Nesterov, "sgdw": xpconv.SGDW}
SCHEDULES = {"constant": lambda step, steps: 1, "cosine": cosine, "stairs": stairs(), "one-cycle": one_cycle()}
AUGMENTATIONS = {"shift": partial(shift, most=1), "cutout": partial(cutout, size=3)}
RECIPES = {
    "digits": {"epochs": 40, "batch_size": 50, "lr": 0.003},
    "mnist": {"epochs": 20, "batch_size": 100, "lr": 0.001},
}


def arguments():
    parser = argparse.ArgumentParser(description="Train a convolutional network on handwritten digits.")
    option = parser.add_argument
    option("--backend", default="numpy", help="numpy, cupy, cupy:1, torch, torch:cuda, jax, array-api-strict")
    option("--data", choices=RECIPES, default="digits")
    option("--data-dir", metavar="DIR", help="where the four files of MNIST are; without it they are downloaded")
    option("--network", choices=("simple", "deep"), default="simple")
    option("--dtype", choices=("float16", "float32", "float64"), default="float32", help="float16 with a scaled loss")
    option("--epochs", type=int, help=f"this, the batch size and the learning rate have defaults: {RECIPES}")
    option("--batch-size", type=int)
    option("--augment", choices=AUGMENTATIONS, help="show every image a little changed each time")
    option("--optimizer", choices=OPTIMIZERS, default="adam")
    option("--lr", type=float, help="the largest learning rate")
    option("--schedule", choices=SCHEDULES, default="cosine", help="how the learning rate changes")
    option(
        "--warmup",
        type=float,
        metavar="SHARE",
        default=0.0,
        help="of all steps, for it to rise to the schedule's start",
    )
    option("--weight-decay", type=float, default=0.0, help="in the loss; beside it with adamw and sgdw")
    option("--clip", type=float, metavar="NORM", help="shorten gradients that are longer")
    option("--ema", type=float, metavar="DECAY", help="measure and save an average of the weights over the steps")
    option("--early-stop", type=int, metavar="EPOCHS", help="stop when so many bring nothing on a held-out tenth")
    option("--metrics", metavar="FILE", help="write losses, learning rates and accuracies, as lines of JSON")
    option("--tensorboard", metavar="DIR", help="write them for TensorBoard")
    option("--seed", type=int, default=0)
    option("--plot", metavar="FILE", help="draw curves, filters and mistakes")
    option("--save", metavar="FILE", help="write the weights, as safetensors")
    option("--checkpoint", metavar="DIR", help="keep the last three states of the training there")
    option("--checkpoint-every", metavar="STEPS", type=int, help="how often; without it after each epoch")
    option("--resume", action="store_true", help="go on from the last whole checkpoint in DIR, where there is one")
    option("--graphs", action="store_true", help="take the steps as CUDA graphs, on one GPU with CuPy")
    option("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(**RECIPES[parser.parse_known_args()[0].data])
    return parser.parse_args()


def chosen(args, held_out):
    if args.dtype == "float16":
        yield LossScaling()
    yield StopAtNaN()
    if args.clip is not None:
        yield ClipNorm(args.clip)
    if args.ema is not None:
        yield WeightAverage(args.ema)
    if held_out:
        yield EarlyStopping(held_out, args.early_stop)
    if args.metrics:
        yield JsonLines(args.metrics)
    if args.tensorboard:
        yield TensorBoard(args.tensorboard)
    if args.plot:
        import plots  # only a plot needs matplotlib

        yield plots.Curves(args.plot)
    if not args.quiet:
        yield Progress()


def part(samples, start, stop):
    return Dataset(samples.images[start:stop], samples.labels[start:stop])


def prepare(args, ranks):
    for file in (args.plot, args.save, args.metrics):
        if file and not Path(file).parent.is_dir():
            raise ValueError(f"there is no directory {Path(file).parent} for {file}")
    if not args.checkpoint and (args.resume or args.checkpoint_every):
        raise ValueError("--resume and --checkpoint-every need --checkpoint DIR")
    if args.seed < 0:
        raise ValueError(f"seed is {args.seed}; give a whole number of at least 0")
    backend = xpconv.backend(ranks.device(args.backend))
    rng = np.random.default_rng(args.seed)
    train, test = load(args.data, args.data_dir)
    held_out = None
    if args.early_stop is not None:
        tenth = len(train) // 10
        train, held_out = part(train, tenth, None), part(train, 0, tenth)
    shape, options = train.images.shape[1:], {"backend": backend, "dtype": args.dtype, "rng": rng}
    if args.network == "deep":
        network = xpconv.DeepConvNet(shape, **options)
    else:
        windows = {"filter_size": 3, "pad": 1} if args.data == "digits" else {}  # the book's 5x5 suit 28x28 pixels
        network = xpconv.SimpleConvNet(shape, windows, weight_init_std="he", **options)
    callbacks = list(chosen(args, held_out))
    if args.checkpoint:
        callbacks.append(Checkpoints(args.checkpoint, every=args.checkpoint_every))
    if args.augment:
        train_on = InMemory(*placed(network, "train", train), args.batch_size, rng)
        train_on = Augmented(train_on, AUGMENTATIONS[args.augment], rng)
    else:
        train_on = train
    trainer = DataParallel(
        ranks,
        network,
        OPTIMIZERS[args.optimizer](args.lr, weight_decay=args.weight_decay),
        train_on,
        test,
        epochs=args.epochs,
        batch_size=args.batch_size,
        schedule=warmup(SCHEDULES[args.schedule], args.warmup),
        rng=rng,
        callbacks=callbacks,
        graphs=args.graphs,
    )
    if not trainer.leads:  # it takes over what the one that leads resumes from, and says nothing
        return trainer, test
    start = callbacks[-1].resume(trainer) if args.resume else None
    together = f" and {ranks.count - 1} more" if ranks.count > 1 else ""
    print(
        f"{args.network} network on {backend}{together}: {len(train)} images to train on, {len(test)} to test",
        flush=True,
    )
    if args.resume:
        print(
            f"going on from {start}" if start else f"no checkpoint in {args.checkpoint} yet: from the start", flush=True
        )
    return trainer, test


def end(error, status):
    print(f"{Path(__file__).name}: {error}", file=sys.stderr)
    sys.exit(status)


def main():
    args = arguments()
    try:
        ranks = Ranks()
    except ImportError as error:
        end(error, 2)
    with ranks:
        train(args, ranks)


def train(args, ranks):
    try:
        if args.plot:
            import plots  # only a plot needs matplotlib
        trainer, test = prepare(args, ranks)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        end(error, 2)
    network = trainer.network
    before = xpconv.to_numpy(network.params["W1"])
    try:
        history = trainer.train()
    except (FloatingPointError, OSError) as error:
        end(error, 1)
    except ValueError as error:
        end(error, 2)
    except KeyboardInterrupt:
        sys.exit(130)
    if not trainer.leads:
        return
    with trainer.evaluating():
        accuracy = network.accuracy(*trainer.test)
        print(f"{history.images_per_second:,.0f} images/s, test accuracy {accuracy:.2%}")
        if args.save:
            network.save(args.save, {"data": args.data, "test accuracy": str(accuracy)})
        if args.plot:
            answers = xpconv.to_numpy(network.classify(trainer.test[0]))
            plots.draw(args.plot, history, before, xpconv.to_numpy(network.params["W1"]), test, answers)


if __name__ == "__main__":
    main()
