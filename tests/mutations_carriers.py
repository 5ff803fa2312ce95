"""Edits that break what pictures go through, and files that are JPEG; see ``mutants``."""

from __future__ import annotations

from mutations import Mutant

_TESTS = "tests/test_carriers.py"
_FILES = "tests/test_carrier_files.py"

CARRIERS = (
    Mutant(
        "JPEG at another quality than was asked for",
        "wic_layers/codec/attacks.py",
        "return _decoded(encode_jpeg(image, int(quality)))",
        "return _decoded(encode_jpeg(image, 75))",
        f"{_TESTS}::test_attacks_are_what_pillow_does",
    ),
    Mutant(
        "a picture stays as small as a messenger made it",
        "wic_layers/codec/attacks.py",
        "        if image.size != box[2:]:\n",
        "        if False:\n",
        f"{_TESTS}::test_attacks_are_what_pillow_does",
    ),
    Mutant(
        "all pictures of a batch draw alike",
        "wic_layers/codec/carrier.py",
        "torch.randint(len(self.choices), (count,)).tolist()",
        "[0] * count",
        f"{_TESTS}::test_each_picture_draws_its_own_and_gets_the_real_pixels",
    ),
    Mutant(
        "the numbers of the stand-in in place of the codec's",
        "wic_layers/codec/carrier.py",
        "return real + (soft - soft.detach())",
        "return soft",
        f"{_TESTS}::test_gradients_are_those_of_the_stand_in",
    ),
    Mutant(
        "colours keep all their pixels in the gradient of JPEG",
        "wic_layers/codec/smooth.py",
        "small = F.avg_pool2d(colours, 2, ceil_mode=True, count_include_pad=False)",
        "return picture",
        f"{_TESTS}::test_colours_have_the_gradient_of_their_halves_and_the_luma_its_own",
    ),
    Mutant(
        "trainings go through 8 bits alone",
        "wic_layers/training/recipe.py",
        "self.carrier.through if self.through else self.rounding",
        "self.rounding",
        f"{_TESTS}::test_a_training_through_jpeg_says_so_and_is_judged_so",
    ),
    Mutant(
        "trainings are judged through 8 bits alone",
        "wic_layers/evaluation/judging.py",
        "arriving = carrier.through(self.forward)",
        "arriving = self.forward",
        f"{_TESTS}::test_a_training_through_jpeg_says_so_and_is_judged_so",
    ),
    Mutant(
        "weights do not say what they were trained through",
        "wic_layers/training/command.py",
        "    result.through = settings.through\n",
        "",
        f"{_TESTS}::test_a_training_through_jpeg_says_so_and_is_judged_so",
    ),
    Mutant(
        "any weights write JPEG",
        "wic_layers/codec/target.py",
        "if chosen is None or not trained_through(chosen):",
        "if chosen is None:",
        f"{_FILES}::test_jpeg_is_refused_where_weights_were_not_trained_for_it",
    ),
    Mutant(
        "any weights read JPEG",
        "wic_layers/codec/source.py",
        "if reader is None or not trained_through(reader):",
        "if reader is None:",
        f"{_FILES}::test_jpeg_is_refused_where_weights_were_not_trained_for_it",
    ),
    Mutant(
        "the mark of a JPEG is that of the pixels before it",
        "wic_layers/codec/target.py",
        "chunk_of(decoded_jpeg(picture, self.quality))",
        "chunk_of(picture)",
        f"{_FILES}::test_jpeg_files_bring_back_what_they_hold",
    ),
    Mutant(
        "part of the segments will do",
        "wic_layers/pictures/jpeg.py",
        "if heads != [(number, len(pieces)) for number in range(len(pieces))]:",
        "if False:",
        f"{_FILES}::test_segments_hold_any_content_and_only_their_own",
    ),
    Mutant(
        "what is cut off is judged where it is not",
        "wic_layers/evaluation/attacked.py",
        "left, top, width, height = (scale * each for each in arrived.box)",
        "_, _, width, height = (scale * each for each in arrived.box)\n    left = top = 0",
        f"{_FILES}::test_eval_through_judges_what_arrives",
    ),
    Mutant(
        "generations are counted from the one before",
        "wic_layers/evaluation/generations.py",
        "first, previous = psnr(now, whole), psnr(now, last)",
        "first, previous = psnr(now, last), psnr(now, last)",
        f"{_FILES}::test_generations_are_counted_from_the_original",
    ),
)
