"""What is broken of Triton's fence, of whom we believe behind it, and of weights."""

from tests.mutations.mutation import Mutation

_ADAPTERS = "tests/inference/test_triton_adapters.py::"
_FAULTS = "tests/inference/test_triton_faults.py::"
_FENCE = "tests/inference/test_triton_fence.py::"

SERVING = (
    Mutation(
        "an answer of another model than the one that was loaded",
        "inference/engines/triton/adapters/sealgate.py",
        'if self._first and self._digest and list(outputs.get("model", ())) != self._digest:',
        'if self._first and self._digest and not outputs.get("model"):',
        f"{_ADAPTERS}test_another_model_is_found_out_with_its_first_word",
    ),
    Mutation(
        "another model behind a Triton that came back",
        "inference/engines/triton/watch.py",
        "if opened is None or opened.info.digest != self.opened.info.digest:",
        "if opened is None:",
        f"{_FAULTS}test_a_killed_triton_is_typed_and_used_again",
    ),
    Mutation(
        "a turn mark in a caller's text, for another's tokenizer",
        "inference/engines/triton/adapters/text.py",
        "if any(control in message.content for message in messages for control in spelt):",
        "if any(control == message.content for message in messages for control in spelt):",
        f"{_ADAPTERS}test_a_text_that_spells_a_control_token_is_refused",
    ),
    Mutation(
        "a Triton that answers whoever brings no certificate",
        "inference/engines/triton/fence.py",
        "    if open_to_all:\n",
        "    if open_to_all and settings.on_loopback:\n",
        f"{_FENCE}test_a_triton_without_a_fence_is_not_used",
    ),
    Mutation(
        "prompts in the clear on a network",
        "inference/engines/triton/settings.py",
        "if not self.on_loopback and (self.ca is None or None in certificates):",
        "if not self.on_loopback and self.ca is None and any(certificates):",
        f"{_FENCE}test_prompts_go_nowhere_in_the_clear",
    ),
    Mutation(
        "a weight that is no number",
        "inference/weights.py",
        "    if not torch.isfinite(tensor).all():\n",
        "    if torch.isnan(tensor).all():\n",
        "tests/inference/test_checkpoint.py::test_tensors_that_are_not_the_architectures_are_refused",
    ),
)
