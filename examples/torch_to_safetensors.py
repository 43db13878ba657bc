"""Convert a state dict that PyTorch has saved to safetensors, which `Network.load` reads.

python examples/torch_to_safetensors.py model.pt model.safetensors
"""

import argparse
import pickle


def convert(source, target):
    """Convert a file; only numbers are read from it, and nothing that it may hold besides is run."""
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError as error:
        raise ImportError('a state dict is read by PyTorch: pip install "xpconv[torch,examples]"') from error
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{source} holds more than numbers, or no state dict; save model.state_dict()") from error
    if not isinstance(state, dict) or not all(torch.is_tensor(tensor) for tensor in state.values()):
        raise ValueError(f"{source} holds no state dict alone; save model.state_dict()")
    ordered = torch.contiguous_format  # in memory that is its own, as the format asks
    save_file({name: tensor.clone(memory_format=ordered) for name, tensor in state.items()}, target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="what torch.save(model.state_dict(), ...) has written")
    parser.add_argument("target", help="the safetensors file to write")
    args = parser.parse_args()
    convert(args.source, args.target)


if __name__ == "__main__":
    from drawing import run

    run(main)
