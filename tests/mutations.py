"""Edits that break the code, each with the tests that must fail under it; see ``mutants``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """An edit of one place.

    Attributes:
        name: What goes wrong, in a few words.
        path: The file.
        old: What stands there, exactly once in the file.
        new: What is put in its place.
        tests: What pytest is given: files, tests in them, options such as ``-k``.
    """

    name: str
    path: str
    old: str
    new: str
    tests: str


FUNCTIONAL = (
    Mutant(
        "a wide kernel's volume is that of its first columns",
        "wic_layers/layer/functional.py",
        "tall = high if high.shape[-2] >= high.shape[-1] else high.mT",
        "tall = high",
        "tests/test_functional.py::test_volume_and_condition_against_singular_values",
    ),
    Mutant(
        "the volume without absolute values",
        "wic_layers/layer/functional.py",
        ".abs().log().sum(-1)",
        ".log().sum(-1)",
        "tests/test_functional.py::test_volume_and_condition_against_singular_values",
    ),
    Mutant(
        "the Gram matrix counted once",
        "wic_layers/layer/functional.py",
        "return 2 * log_volume(kernel)",
        "return log_volume(kernel)",
        "tests/test_functional.py::test_volume_and_condition_against_singular_values",
    ),
    Mutant(
        "the other rows pull at the exact ones",
        "wic_layers/layer/functional.py",
        "fit = q2.mT - basis @ (basis.mT @ q2.mT)",
        "fit = q2.mT",
        "tests/test_functional.py::test_constrained_inverse_solves_its_least_squares_problem",
    ),
    Mutant(
        "the algebra in float32",
        "wic_layers/layer/functional.py",
        "return tensor.to(torch.float64)",
        "return tensor.to(torch.float32)",
        "tests/test_functional.py::test_left_and_right_inverse",
    ),
    Mutant(
        "a triangle solved from the side that loses digits",
        "wic_layers/layer/functional.py",
        "return from_algebra(_inverse(r) @ q.mT, kernel)",
        "return from_algebra(torch.linalg.solve_triangular(r, q.mT, upper=True), kernel)",
        "tests/test_functional.py::test_no_product_sees_the_square_of_the_condition",
    ),
)

COMPLETION = (
    Mutant(
        "the nearest offsets counted in steps, not as the crow flies",
        "wic_layers/layer/completion.py",
        "sum(step * step for step in point)",
        "sum(abs(step) for step in point)",
        "tests/test_completion.py::test_shift_takes_the_nearest_offsets_first",
    ),
    Mutant(
        "the ring beyond the square forgotten",
        "wic_layers/layer/completion.py",
        "reach = max(reach, math.isqrt(rank * reach * reach) + 1)",
        "pass",
        "tests/test_completion.py::test_the_next_point_on_an_axis_comes_before_a_corner",
    ),
    Mutant(
        "a border reflected with its last pixel twice",
        "wic_layers/layer/completion.py",
        "2 * (size - 1), device",
        "2 * size - 1, device",
        "tests/test_completion.py::test_reflection_has_the_period_of_its_size",
    ),
    Mutant(
        "shifts into the opposite direction",
        "wic_layers/layer/completion.py",
        "torch.arange(size, device=y.device) - offset",
        "torch.arange(size, device=y.device) + offset",
        "tests/test_completion.py::test_shift_is_roll_cut_and_reflect_on_large_images",
    ),
    Mutant(
        "the published order from a larger square",
        "wic_layers/layer/completion.py",
        "math.ceil(groups ** (1 / rank) / 2)",
        "math.ceil(groups ** (1 / rank) / 2) + 1",
        "tests/test_completion.py::test_shift_is_roll_cut_and_reflect_on_large_images",
    ),
    Mutant(
        "the published layout with the nearest offsets",
        "wic_layers/layer/conv.py",
        '"published" if self.layout == "published" else "nearest"',
        '"nearest"',
        "tests/test_conv.py::test_default_completion_is_zero_or_as_published",
    ),
    Mutant(
        "each channel repeated before the next one",
        "wic_layers/layer/completion.py",
        "torch.cat([y] * times, dim=1)",
        "y.repeat_interleave(times, 1)",
        "tests/test_completion.py::test_repeat_takes_the_channels_in_turn",
    ),
    Mutant(
        "repeats folded into the inverse in another order",
        "wic_layers/layer/kernel.py",
        "unflatten(1, (-1, m)).sum(1)",
        "unflatten(1, (m, -1)).sum(2)",
        "tests/test_completion.py::test_a_linear_completion_equals_its_callable",
    ),
    Mutant(
        "the negative log-likelihood of random numbers twice",
        "wic_layers/layer/completion.py",
        "extra.square() / 2",
        "extra.square()",
        "tests/test_auxiliary.py::test_gaussian_takes_half_the_square",
    ),
    Mutant(
        "a learned completion that starts at random",
        "wic_layers/layer/completion.py",
        "nn.init.zeros_(parameter)",
        "parameter.requires_grad_()",
        "tests/test_completion.py::test_learned_starts_as_zero_and_learns",
    ),
    Mutant(
        "a learned completion in its own dtype",
        "wic_layers/layer/completion.py",
        "return out.to(y.dtype)",
        "return out",
        "tests/test_completion.py::test_learned_starts_as_zero_and_learns",
    ),
    Mutant(
        "a completion for other numbers of channels",
        "wic_layers/layer/completion.py",
        "if given != (in_channels, out_channels):",
        "if False:",
        "tests/test_completion.py::test_wrong_arguments",
    ),
    Mutant(
        "the farthest shift without those to the other side",
        "wic_layers/layer/completion.py",
        "abs(step) for offset in self._offsets[2]",
        "step for offset in self._offsets[2]",
        "tests/test_inspection.py::test_receptive_field_is_what_autograd_sees",
    ),
)

LOSSES = (
    Mutant(
        "shift_loss as a mean over pixels",
        "wic_layers/layer/losses.py",
        "distance.sum() /",
        "distance.mean() /",
        "tests/test_auxiliary.py::test_shift_loss_sums_over_channels_and_pixels_and_averages_the_batch",
    ),
    Mutant(
        "shift_loss summed over the batch",
        "wic_layers/layer/losses.py",
        "distance.sum() / max(extra.shape[0], 1)",
        "distance.sum()",
        "tests/test_auxiliary.py::test_shift_loss_sums_over_channels_and_pixels_and_averages_the_batch",
    ),
    Mutant(
        "a target that learns",
        "wic_layers/layer/losses.py",
        "aim.detach().to(",
        "aim.to(",
        "tests/test_auxiliary.py::test_the_target_is_detached_and_the_own_output_is_not",
    ),
    Mutant(
        "the own output does not learn",
        "wic_layers/layer/losses.py",
        "record.output if aim is None else aim",
        "record.output.detach() if aim is None else aim",
        "tests/test_auxiliary.py::test_the_target_is_detached_and_the_own_output_is_not",
    ),
    Mutant(
        "targets ignored",
        "wic_layers/layer/losses.py",
        "record.output if aim is None else aim",
        "record.output",
        "tests/test_auxiliary.py::test_targets_by_name",
    ),
    Mutant(
        "charbonnier closer to L1",
        "wic_layers/layer/losses.py",
        "add(1e-6)",
        "add(1e-8)",
        "tests/test_auxiliary.py::test_shift_loss_sums_over_channels_and_pixels_and_averages_the_batch",
    ),
    Mutant(
        "shift_loss in half precision",
        "wic_layers/layer/losses.py",
        "record.extra.to(torch.promote_types(record.extra.dtype, torch.float32))",
        "record.extra",
        "tests/test_auxiliary.py::test_shift_loss_of_images_in_half_precision",
    ),
    Mutant(
        "a target in its own dtype",
        "wic_layers/layer/losses.py",
        ".to(_dtype_of(records, name))",
        "",
        "tests/test_auxiliary.py::test_a_completion_sees_targets_in_the_dtype_of_the_output",
    ),
    Mutant(
        "det_loss with its sign",
        "wic_layers/layer/losses.py",
        "gram_logdet().abs() for",
        "gram_logdet() for",
        "tests/test_auxiliary.py::test_det_loss_takes_every_stored_row",
    ),
    Mutant(
        "det_loss as a mean over layers",
        "wic_layers/layer/losses.py",
        "torch.stack(terms).sum()",
        "torch.stack(terms).mean()",
        "tests/test_auxiliary.py::test_det_loss_sums_over_layers_and_counts_a_shared_one_once",
    ),
    Mutant(
        "det_loss counts the volume once",
        "wic_layers/layer/kernel.py",
        "from_algebra(2 * volume,",
        "from_algebra(volume,",
        "tests/test_auxiliary.py::test_det_loss_takes_every_stored_row",
    ),
    Mutant(
        "records in reverse order",
        "wic_layers/layer/losses.py",
        "in newer[::-1]:",
        "in newer:",
        "tests/test_auxiliary.py::test_names_orders_and_two_forwards_in_a_step",
    ),
    Mutant(
        "a nested recording goes on with the outer one",
        "wic_layers/layer/losses.py",
        "is_innermost = is_innermost and layer is not None",
        "is_innermost = True",
        "tests/test_auxiliary.py::test_nested_recordings",
    ),
    Mutant(
        "frozen layers raise",
        "wic_layers/layer/losses.py",
        "and _is_trained(record.layer)",
        "and True",
        "tests/test_auxiliary_checkpoint.py::test_frozen_layers_and_no_grad_do_not_raise",
    ),
    Mutant(
        "a trained completion of a frozen kernel raises",
        "wic_layers/layer/losses.py",
        'if not name.startswith("completion.")',
        "if True",
        "tests/test_auxiliary_checkpoint.py::test_a_frozen_kernel_with_a_trained_completion",
    ),
    Mutant(
        "records without gradients pass",
        "wic_layers/layer/losses.py",
        "and not record.extra.requires_grad",
        "and False",
        "tests/test_auxiliary.py::test_a_record_of_no_grad_is_judged_there",
    ),
    Mutant(
        "the first rows recorded in place of the others",
        "wic_layers/layer/conv.py",
        "rest = weight[self.out_channels :]",
        "rest = weight[: self.rows - self.out_channels]",
        "tests/test_auxiliary.py::test_records_the_other_rows",
    ),
    Mutant(
        "widening layers record",
        "wic_layers/layer/conv.py",
        "if self.out_channels < self.in_channels and is_recording():",
        "if is_recording():",
        "tests/test_auxiliary.py::test_widening_and_inverse_calls_record_nothing",
    ),
    Mutant(
        "checkpoints count what was recorded",
        "wic_layers/layer/conv.py",
        "with torch.autograd.graph.saved_tensors_hooks(_keep, _keep):",
        "if True:",
        "tests/test_auxiliary_checkpoint.py",
    ),
)

LAYER = (
    Mutant(
        "the last rows kept",
        "wic_layers/layer/conv.py",
        "convolve(x, weight[: self.out_channels])",
        "convolve(x, weight[-self.out_channels :])",
        "tests/test_conv.py::test_forward_is_a_convolution_with_the_leading_rows",
    ),
    Mutant(
        "the volume of all rows",
        "wic_layers/layer/kernel.py",
        "log_volume, high[:rows]",
        "log_volume, high",
        "tests/test_conv.py::test_log_volume_against_the_jacobian",
    ),
    Mutant(
        "the same log-determinant on the way back",
        "wic_layers/layer/conv.py",
        "(-1 if rev else 1)",
        "1",
        "tests/test_conv_modes.py::test_with_log_det",
    ),
    Mutant(
        "a log-determinant of columns of pixels",
        "wic_layers/layer/conv.py",
        "math.prod(shape[2:])",
        "math.prod(shape[3:])",
        "tests/test_conv_modes.py::test_with_log_det",
    ),
    Mutant(
        "log-determinants in shared memory",
        "wic_layers/layer/conv.py",
        ".expand(shape[0]).clone()",
        ".expand(shape[0])",
        "tests/test_conv_modes.py::test_with_log_det",
    ),
    Mutant(
        "a cached log-determinant in the dtype of an earlier input",
        "wic_layers/layer/conv.py",
        '("log_volume", x.dtype)',
        '"log_volume"',
        "tests/test_conv_modes.py::test_a_cached_log_det_is_in_the_dtype_of_each_input",
    ),
    Mutant(
        "published rows not rounded up",
        "wic_layers/layer/conv.py",
        "return -(-n // m) * m",
        "return n",
        "tests/test_conv.py::test_published_inverse_is_moore_penrose_of_all_rows",
    ),
    Mutant(
        "kernels that do not start orthonormal",
        "wic_layers/layer/conv.py",
        "nn.init.orthogonal_(start)",
        "nn.init.normal_(start)",
        "tests/test_conv.py::test_starts_with_orthonormal_rows_or_columns",
    ),
    Mutant(
        "a Parameter copied",
        "wic_layers/layer/conv.py",
        "kernel if own else nn.Parameter(_copied(kernel))",
        "nn.Parameter(_copied(kernel))",
        "tests/test_from_kernel.py::test_from_kernel_keeps_a_parameter_and_copies_a_tensor",
    ),
    Mutant(
        "a kernel that is not kept takes random numbers",
        "wic_layers/layer/conv.py",
        "enabled=not draws",
        "enabled=False",
        "tests/test_from_kernel.py::test_from_kernel_of_every_shape",
    ),
    Mutant(
        "LU without its signs",
        "wic_layers/layer/parametrization.py",
        "torch.diag(self.sign * log_diagonal.exp())",
        "torch.diag(log_diagonal.exp())",
        "tests/test_from_kernel.py::test_from_kernel_of_every_shape",
    ),
    Mutant(
        "LU with the permutation of its inverse",
        "wic_layers/layer/parametrization.py",
        "self.permutation.copy_(order.argmax(dim=1))",
        "self.permutation.copy_(order.argmax(dim=0))",
        "tests/test_from_kernel.py::test_from_kernel_of_every_shape",
    ),
)

INVERSION = (
    Mutant(
        "an inverse cached in training",
        "wic_layers/layer/kernel.py",
        "self._is_training() and not all",
        "False and not all",
        "tests/test_conv_cache.py::test_only_in_eval_off_the_cpu",
    ),
    Mutant(
        "an inverse cached where gradients are wanted",
        "wic_layers/layer/kernel.py",
        "            torch.is_grad_enabled()\n            or torch.compiler",
        "            torch.compiler",
        "tests/test_conv_cache.py::test_only_with_gradients_off",
    ),
    Mutant(
        "an inverse cached under transforms",
        "wic_layers/layer/kernel.py",
        " if has_values(sources[0]) else None",
        "",
        "tests/test_conv_cache.py::test_not_filled_nor_used_under_transforms",
    ),
    Mutant(
        "train and eval keep the cache",
        "wic_layers/layer/kernel.py",
        "        self.clear_cache()\n        super().train(mode)",
        "        super().train(mode)",
        "tests/test_conv_cache.py::test_forgotten_by",
    ),
    Mutant(
        "moving keeps the cache",
        "wic_layers/layer/kernel.py",
        "        self.clear_cache()\n        super()._apply(",
        "        super()._apply(",
        "tests/test_conv_cache.py::test_forgotten_by",
    ),
    Mutant(
        "loading keeps the cache",
        "wic_layers/layer/kernel.py",
        "        self.clear_cache()\n        super()._load",
        "        super()._load",
        "tests/test_conv_cache.py::test_forgotten_by",
    ),
    Mutant(
        "edits of the kernel unseen",
        "wic_layers/layer/cache.py",
        "and all(map(_is_unchanged, traces, sources))",
        "",
        "tests/test_conv_cache.py::test_no_edit_is_missed_on_a_cpu",
    ),
    Mutant(
        "a copy of the kernel that shares its memory",
        "wic_layers/layer/cache.py",
        "return source.detach().clone()",
        "return source.detach()",
        "tests/test_conv_cache.py::test_no_edit_is_missed_on_a_cpu",
    ),
    Mutant(
        "the cache travels with a copy",
        "wic_layers/layer/kernel.py",
        'state["_cache"] = KernelCache()',
        "pass",
        "tests/test_conv_cache.py::test_survives_neither_in_the_state_nor_in_a_copy",
    ),
    Mutant(
        "one cached inverse for all dtypes",
        "wic_layers/layer/kernel.py",
        "(y.dtype, y.ndim, type(self.completion))",
        "(y.ndim, type(self.completion))",
        "tests/test_conv_cache.py::test_second_call_computes_no_inverse",
    ),
    Mutant(
        "one cached inverse for all completions",
        "wic_layers/layer/kernel.py",
        "(y.dtype, y.ndim, type(self.completion))",
        "(y.dtype, y.ndim)",
        "tests/test_conv_cache.py::test_another_completion_is_seen",
    ),
    Mutant(
        "no condition is too bad",
        "wic_layers/layer/kernel.py",
        "if not float(bound) <= CONDITION_LIMIT:",
        "if False:",
        "tests/test_conv_errors.py::test_a_kernel_without_inverse_raises_by_name_and_number",
    ),
    Mutant(
        "exact rows of any condition",
        "wic_layers/layer/kernel.py",
        "number = max(number, float(condition_number(high[: self.out_channels])))",
        "pass",
        "tests/test_conv_errors.py::test_exact_rows_without_inverse_raise_too",
    ),
    Mutant(
        "no condition is too bad in an ensemble",
        "wic_layers/layer/kernel.py",
        "torch.where(bound <= CONDITION_LIMIT, matrix, torch.nan)",
        "matrix",
        "tests/test_conv_modes.py::test_exact_rows_of_a_bad_condition_give_nan_in_an_ensemble",
    ),
    Mutant(
        "published rows constrained",
        "wic_layers/layer/kernel.py",
        'and self.layout == "compact"',
        "",
        "tests/test_conv.py::test_published_inverse_is_moore_penrose_of_all_rows",
    ),
    Mutant(
        "rows beyond n not constrained",
        "wic_layers/layer/kernel.py",
        "return constrained_inverse(high, self.out_channels)",
        "return left_inverse(high)",
        "tests/test_conv.py::test_inverse_is_the_inverse_of_the_stored_rows",
    ),
)

QUANTIZATION = (
    Mutant(
        "pixels that no file holds",
        "wic_layers/layer/quantization.py",
        "clamped = x.clamp(0, 1)",
        "clamped = x",
        "tests/test_quantization.py",
    ),
    Mutant(
        "rounded down",
        "wic_layers/layer/quantization.py",
        ").round() / levels",
        ").floor() / levels",
        "tests/test_quantization.py",
    ),
    Mutant(
        "eight bits at any number of levels",
        "wic_layers/layer/quantization.py",
        "(clamped.detach() * levels).round() / levels",
        "(clamped.detach() * 255).round() / 255",
        "tests/test_quantization.py",
    ),
    Mutant(
        "a gradient through clamped pixels",
        "wic_layers/layer/quantization.py",
        "clamped + (rounded - clamped.detach()) if",
        "x + (rounded - x.detach()) if",
        "tests/test_training_objective.py::"
        "test_quantize_rounds_and_passes_the_gradient_where_nothing_is_clamped",
    ),
    Mutant(
        "no gradient",
        "wic_layers/layer/quantization.py",
        "clamped + (rounded - clamped.detach()) if",
        "rounded if",
        "tests/test_training_objective.py::"
        "test_quantize_rounds_and_passes_the_gradient_where_nothing_is_clamped",
    ),
    Mutant(
        "noise of one sign",
        "wic_layers/layer/quantization.py",
        "torch.rand_like(x) - 0.5",
        "torch.rand_like(x)",
        "tests/test_quantization.py",
    ),
    Mutant(
        "noise of eight bits at any number of levels",
        "wic_layers/layer/quantization.py",
        "- 0.5) / levels",
        "- 0.5) / 255",
        "tests/test_quantization.py",
    ),
    Mutant(
        "noise past black and white",
        "wic_layers/layer/quantization.py",
        "(x.clamp(0, 1) + noise).clamp(0, 1)",
        "x.clamp(0, 1) + noise",
        "tests/test_quantization.py",
    ),
)

DEPLOYED = (
    Mutant(
        "exported pixels rounded down",
        "wic_layers/deploy/export.py",
        "(x[0].clamp(0, 1) * 255).round()",
        "(x[0].clamp(0, 1) * 255)",
        "tests/test_deploy.py::test_programs_take_small_images_and_round_to_the_same_pixels",
    ),
    Mutant(
        "exported pixels wrap around",
        "wic_layers/deploy/export.py",
        "x[0].clamp(0, 1)",
        "x[0]",
        "tests/test_deploy.py::test_programs_take_small_images_and_round_to_the_same_pixels",
    ),
    Mutant(
        "images padded with their border",
        "wic_layers/pictures/pixels.py",
        "return (last - (torch.arange(target) - last).abs()).clamp(min=0)",
        "return torch.arange(target).clamp(max=last)",
        "tests/test_images.py::test_padding_keeps_the_image_and_reflects",
    ),
    Mutant(
        "exported images padded at one side only",
        "wic_layers/deploy/export.py",
        "1, continued(image.shape[1], columns)",
        "1, continued(image.shape[1], image.shape[1])",
        "tests/test_deploy.py::test_programs_take_small_images_and_round_to_the_same_pixels",
    ),
    Mutant(
        "fused weights still train",
        "wic_layers/deploy/fusing.py",
        "fused.eval().requires_grad_(requires_grad=False)",
        "fused.eval()",
        "tests/test_deploy.py::test_layers -k learned",
    ),
    Mutant(
        "fused in training mode",
        "wic_layers/deploy/fusing.py",
        "fused.eval().requires_grad_(requires_grad=False)",
        "fused.requires_grad_(requires_grad=False)",
        "tests/test_deploy.py::test_layers -k learned",
    ),
    Mutant(
        "a fused log-volume with the sign of the other direction",
        "wic_layers/deploy/constants.py",
        "volume = -self.volume if rev else self.volume",
        "volume = self.volume",
        "tests/test_deploy.py::test_normflows_model",
    ),
    Mutant(
        "a fused log-volume of one pixel",
        "wic_layers/deploy/constants.py",
        "math.prod(x.shape[2:])",
        "1",
        "tests/test_deploy.py::test_normflows_model",
    ),
    Mutant(
        "inverses rounded to half precision",
        "wic_layers/deploy/constants.py",
        "dtype = torch.promote_types(layer.weight.dtype, torch.float32)",
        "dtype = layer.weight.dtype",
        "tests/test_deploy.py::test_constants_keep_the_digits_of_their_inputs",
    ),
    Mutant(
        "normflows' directions taken for the layer's",
        "wic_layers/deploy/constants.py",
        'type(parent).__module__ == "wic_layers.hosts.normflows"',
        "False",
        "tests/test_deploy.py::test_narrow_flow_with_random_numbers",
    ),
    Mutant(
        "what optimize set stays in a host's dense blocks",
        "wic_layers/deploy/constants.py",
        "child.optimize(None)",
        "pass",
        "tests/test_deploy.py::test_what_optimize_set_is_left_behind",
    ),
    Mutant(
        "blocks used twice are two",
        "wic_layers/deploy/constants.py",
        "            if child not in constants:",
        "            if True:",
        "tests/test_deploy.py::test_shared_blocks_stay_shared",
    ),
    Mutant(
        "couplings' networks must have inverses to be fused",
        "wic_layers/deploy/constants.py",
        "reverse != turned and name not in networks",
        "reverse != turned",
        "tests/test_deploy.py::test_own_networks_inside_couplings",
    ),
    Mutant(
        "the other direction's networks stay in a fused relation",
        "wic_layers/blocks/relation.py",
        'del self._modules["there" if rev else "back"]',
        "pass",
        "tests/test_deploy.py::test_one_direction_holds_its_own_networks_only",
    ),
    Mutant(
        "couplings stay in float32 where float16 is asked for",
        "wic_layers/deploy/fusing.py",
        "isinstance(block, (InvertibleBlock, Completed))",
        "isinstance(block, Completed)",
        "tests/test_deploy.py::test_half_precision_inside_couplings",
    ),
    Mutant(
        "fused shifts in half precision",
        "wic_layers/deploy/constants.py",
        'self.networks = () if isinstance(completion, Shift) else ("completion",)',
        'self.networks = ("completion",)',
        "tests/test_deploy.py::test_half_precision_inside_couplings",
    ),
)

CONVERTED = (
    Mutant(
        "a network made well posed does not start as it was",
        "wic_layers/hosts/well_posed.py",
        "self.wic.weight.copy_(torch.eye(in_channels))",
        "pass",
        "tests/test_well_posed.py",
    ),
    Mutant(
        "a network made well posed in float32",
        "wic_layers/hosts/well_posed.py",
        'where["dtype"] = parameter.dtype',
        "pass",
        "tests/test_well_posed.py",
    ),
)

BLOCKS = (
    Mutant(
        "squares of pixels by columns",
        "wic_layers/blocks/squeezes.py",
        "-> n (g i j c) h w",
        "-> n (g j i c) h w",
        "tests/test_blocks.py::test_a_squeeze_in_groups_is_in_the_order_of_haar",
    ),
    Mutant(
        "horizontal and vertical differences exchanged",
        "wic_layers/blocks/haar.py",
        "b + d - a - c, c + d - a - b",
        "c + d - a - b, b + d - a - c",
        "tests/test_blocks.py -k haar",
    ),
    Mutant(
        "a Haar transform that shrinks",
        "wic_layers/blocks/haar.py",
        "torch.cat(bands, dim=2) / 2",
        "torch.cat(bands, dim=2) / 4",
        "tests/test_blocks.py -k haar",
    ),
    Mutant(
        "IRN's low band as a sum",
        "wic_layers/blocks/haar.py",
        "torch.cat(bands, dim=2) / 4",
        "torch.cat(bands, dim=2) / 2",
        "tests/test_blocks.py -k haar",
    ),
    Mutant(
        "IRN's bands with the orthonormal signs",
        "wic_layers/blocks/haar.py",
        "a + c - b - d, a + b - c - d",
        "b + d - a - c, c + d - a - b",
        "tests/test_blocks.py -k haar",
    ),
    Mutant(
        "a learned squeeze that starts brighter",
        "wic_layers/blocks/squeezes.py",
        "1 / factor**2",
        "1 / factor",
        "tests/test_blocks.py::test_a_learned_squeeze_starts_as_a_small_picture_and_single_pixels",
    ),
    Mutant(
        "scales by the hyperbolic tangent",
        "wic_layers/blocks/couplings.py",
        "2 * torch.sigmoid(self.H(seen).to(dtype)) - 1",
        "torch.tanh(self.H(seen).to(dtype))",
        "tests/test_blocks.py::test_coupling_formula",
    ),
    Mutant(
        "scales without their clamp",
        "wic_layers/blocks/couplings.py",
        "scale = self.clamp *",
        "scale =",
        "tests/test_blocks.py::test_coupling_formula",
    ),
    Mutant(
        "a scale in half precision",
        "wic_layers/blocks/couplings.py",
        "self.H(seen).to(dtype)",
        "self.H(seen)",
        "tests/test_blocks.py::test_coupling_keeps_its_halves_in_float32_under_autocast",
    ),
    Mutant(
        "an odd channel in the first half",
        "wic_layers/blocks/couplings.py",
        "channels // 2 if split is None",
        "(channels + 1) // 2 if split is None",
        "tests/test_blocks.py::test_the_second_half_takes_an_odd_channel",
    ),
    Mutant(
        "a gradient of scales from what was not scaled",
        "wic_layers/blocks/couplings.py",
        "(g2, g2_scaled * x2)",
        "(g2, g2 * x2)",
        "tests/test_reversible.py::test_gradients_are_those_of_autograd",
    ),
    Mutant(
        "a gradient of scales on the way back from what was scaled",
        "wic_layers/blocks/couplings.py",
        "(-g2_scaled, -g2 * x2)",
        "(-g2_scaled, -g2_scaled * x2)",
        "tests/test_reversible.py::test_gradients_are_those_of_autograd",
    ),
    Mutant(
        "the second gradient of a block that runs twice alone",
        "wic_layers/blocks/block.py",
        "gradients[parameter] + new if parameter in gradients else new",
        "new",
        "tests/test_reversible.py::test_a_block_that_is_used_twice_gets_both_gradients",
    ),
    Mutant(
        "weights that change before the way back",
        "wic_layers/blocks/reversible.py",
        "ctx.save_for_backward(*piece.weights, x, *inputs)",
        "ctx.save_for_backward(*(w.detach().clone() for w in piece.weights), x, *inputs)",
        "tests/test_reversible.py::test_weights_that_change_before_the_way_back_are_an_error",
    ),
    Mutant(
        "an unknown block keeps channels and sides",
        "wic_layers/blocks/block.py",
        "return y.shape[1], side * Fraction(y.shape[2], _PROBE)",
        "return channels, side",
        "tests/test_blocks_own.py",
    ),
    Mutant(
        "a block that says nothing sees nothing",
        "wic_layers/blocks/block.py",
        "return sum(map(reach_of, self.children()))",
        "return 0",
        "tests/test_blocks_own.py",
    ),
    Mutant(
        "blocks in a memory cannot be undone",
        "wic_layers/blocks/memory.py",
        "not has_hooks(self) and as_block(self.inner).can_undo(rev=rev)",
        "False",
        "tests/test_reversible.py",
    ),
    Mutant(
        "hooks that do not see the way back",
        "wic_layers/layer/two_way.py",
        "self(y, rev=True) if self._takes_rev and has_hooks(self) else self._inverse(y)",
        "self._inverse(y)",
        "tests/test_blocks_called.py::test_a_block_alone_runs_its_hooks_in_both_directions",
    ),
)

KERNELS = (
    Mutant(
        "float64 where a device has none",
        "wic_layers/layer/functional.py",
        '{"cpu", "cuda", "meta"}',
        '{"cpu", "cuda", "meta", "mps"}',
        "tests/test_conv_devices.py",
    ),
    Mutant(
        "narrowing in float64 by the inverse of widening",
        "wic_layers/layer/kernel.py",
        "(runs_after or stored != torch.float64)",
        "(stored != torch.float64)",
        "tests/test_conv_precision.py::test_narrowing_in_float64_is_undone_to_a_small_multiple_of_the_precision",
    ),
    Mutant(
        "a parametrization on top of another unseen",
        "wic_layers/layer/cache.py",
        "same == maps",
        "True",
        "tests/test_parametrization.py::test_a_parametrization_on_top_is_seen_after_a_cached_call",
    ),
    Mutant(
        "a dual kernel taken for its primal",
        "wic_layers/layer/kernel.py",
        "or torch.autograd.forward_ad._current_level >= 0",
        "or False",
        "tests/test_conv_traced.py::test_forward_derivatives_carry_the_tangent_of_the_kernel",
    ),
    Mutant(
        "numbers read of tensors that have none",
        "wic_layers/layer/pointwise.py",
        "or isinstance(x, FakeTensor)",
        "",
        "tests/test_conv_traced.py::test_fake_layers_run_in_both_directions",
    ),
    Mutant(
        "replicas without their parameters",
        "wic_layers/layer/kernel.py",
        'part.__dict__.get("_former_parameters")',
        "None",
        "tests/test_conv_replicas.py",
    ),
    Mutant(
        "log-determinants of LU kernels summed in their own dtype",
        "wic_layers/layer/kernel.py",
        "to_algebra(diagonal).sum()",
        "diagonal.sum()",
        "tests/test_parametrization.py"
        "::test_log_determinants_of_half_precision_kernels_are_those_of_the_numbers_stored",
    ),
    Mutant(
        "a copied kernel in the order of the view it was",
        "wic_layers/layer/conv.py",
        "torch.contiguous_format",
        "torch.preserve_format",
        "tests/test_from_kernel.py::test_a_kernel_that_is_a_view_can_be_saved",
    ),
    Mutant(
        "parametrized layers pickled by the class made on the fly",
        "wic_layers/layer/kernel.py",
        "if not parametrize.is_parametrized(self):\n            return super().__reduce_ex__",
        "if True:\n            return super().__reduce_ex__",
        "tests/test_parametrization.py::test_a_layer_goes_whole_through_pickle",
    ),
    Mutant(
        "weight decay that reaches an orthogonal kernel",
        "wic_layers/layer/parametrization.py",
        "square - square.mT",
        "square + square.mT",
        "tests/test_parametrization.py"
        "::test_orthogonal_kernels_stay_orthogonal_while_they_are_trained",
    ),
)

MUTANTS = (
    *FUNCTIONAL,
    *COMPLETION,
    *LOSSES,
    *LAYER,
    *INVERSION,
    *QUANTIZATION,
    *DEPLOYED,
    *CONVERTED,
    *BLOCKS,
    *KERNELS,
)
