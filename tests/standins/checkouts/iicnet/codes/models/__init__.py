"""A stand-in for IICNet's code base: what its integration changes, and what trains and loads.

Names, calls and shapes are those of its ``codes``; what they do is written anew.
"""


def create_model(opt):
    from .InvNet import InvNet as M
    return M(opt)
