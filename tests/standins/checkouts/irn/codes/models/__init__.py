"""A stand-in for IRN's code base: what its integration changes, and what trains, saves and loads.

Names, calls and shapes are those of its ``codes``; what they do is written anew.
"""


def create_model(opt):
    if opt['model'] == 'IRN':
        from .IRN_model import IRNModel as M
    elif opt['model'] == 'IRN+':
        from .IRNp_model import IRNpModel as M
    else:
        from .IRN_color_model import IRNColorModel as M
    return M(opt)
