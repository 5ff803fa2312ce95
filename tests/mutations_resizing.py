"""Edits that break the planning of another number of channels; see ``mutants``."""

from __future__ import annotations

from mutations import Mutant

_TESTS = "tests/test_resizing.py"

RESIZING = (
    Mutant(
        "a module may lose numbers at its new size",
        "wic_layers/hosts/refit.py",
        "return output if is_whole else None",
        "return output",
        f"{_TESTS}::test_what_would_drop_channels_is_unclear",
    ),
    Mutant(
        "what runs is kept, whatever channels it holds",
        "wic_layers/hosts/refit.py",
        "if as_it_is is not None and not tied and not in_lists:",
        "if as_it_is is not None:",
        f"{_TESTS}::test_a_permutation_that_knows_its_channels_is_rebuilt",
    ),
    Mutant(
        "a WIC that narrows follows as a square one does",
        "wic_layers/hosts/refit.py",
        "pairs.get(m, m) if n not in pairs else m",
        "pairs.get(n, m)",
        f"{_TESTS}::test_what_has_no_sizes_is_kept_and_what_narrows_ends_the_change",
    ),
    Mutant(
        "what a WIC predicts with is forgotten",
        "wic_layers/hosts/refit.py",
        '"learned" if isinstance(wic.completion, Learned) and rows == "n" else None',
        "None",
        f"{_TESTS}::test_sizes_are_those_of_the_constructor",
    ),
    Mutant(
        "joined tensors all become the size of the first",
        "wic_layers/hosts/refit.py",
        "    lists = _lists(inputs, new_inputs) | _lists(_main(inputs), _main(new_inputs))",
        "    lists = dict[object, object]()",
        f"{_TESTS}::test_one_branch_of_a_graph",
    ),
    Mutant(
        "a coupling's result is no pair of halves",
        "wic_layers/hosts/variants.py",
        "if size % 2 == 0 and size // 2 in options:",
        "if size < 0:",
        f"{_TESTS}::test_sizes_are_those_of_normflows_constructors",
    ),
    Mutant(
        "an uneven coupling becomes an even one",
        "wic_layers/hosts/variants.py",
        "if rest in parts and 0 < part < rest - 1 and new > part:",
        "if part < 0:",
        f"{_TESTS}::test_a_network_in_the_style_of_irn",
    ),
    Mutant(
        "sides of an image taken for channels",
        "wic_layers/hosts/variants.py",
        "for only_channels, ends in product((False, True), levels):",
        "for only_channels, ends in product((False,), levels):",
        f"{_TESTS}::test_sides_of_images_are_no_channels",
    ),
    Mutant(
        "a permutation is cut",
        "wic_layers/hosts/variants.py",
        "if not tensor.is_floating_point() and tensor.ndim == 1:",
        "if tensor.ndim < 0:",
        f"{_TESTS}::test_sizes_are_those_of_normflows_constructors",
    ),
    Mutant(
        "normalised weights as they were computed before",
        "wic_layers/hosts/variants.py",
        "            hook(layer, args)",
        "            pass",
        f"{_TESTS}::test_normalised_weights_follow",
    ),
    Mutant(
        "swapped layers as their WIC has them",
        "wic_layers/hosts/variants.py",
        "            unswap_1x1(twin)  #",
        "            #",
        f"{_TESTS}::test_swapped_layers_follow_as_their_owners_do",
    ),
    Mutant(
        "the model itself is run",
        "wic_layers/hosts/watching.py",
        "        twin = twin_of(model)",
        "        twin = model",
        f"{_TESTS}::test_nothing_of_the_model_changes",
    ),
    Mutant(
        "all modules behind the layer are tried",
        "wic_layers/hosts/watching.py",
        "is_same = all_shapes(inputs) == all_shapes(before.inputs)",
        "is_same = full == name",
        f"{_TESTS}::test_it_prints_in_words",
    ),
    Mutant(
        "a graph's nodes run the old modules",
        "wic_layers/hosts/resizing.py",
        "                    node.module = module",
        "                    pass",
        f"{_TESTS}::test_transfer_into_the_nodes_of_a_graph",
    ),
    Mutant(
        "a shared module moved over the rebuilt one",
        "wic_layers/hosts/resizing.py",
        "if name not in changed}",
        "}",
        f"{_TESTS}::test_a_shared_module_is_not_transferred_where_it_changes",
    ),
)
