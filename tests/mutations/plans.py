"""What is broken of graphs and plans: files of strangers, plans of another version, the builder."""

from tests.mutations.mutation import Mutation

_GRAPH = "tests/inference/test_step_graph.py::"
_WRONG = f"{_GRAPH}test_what_is_wrong_with_a_graph_is_found_before_it_is_run"
_PLAN = "tests/inference/test_plan.py::"

PLANS = (
    Mutation(
        "a graph's weights outside of its folder",
        "inference/tensorrt/files.py",
        'if not name or "/" in name or',
        "if not name or",
        f"{_WRONG}[weights_above]",
    ),
    Mutation(
        "a graph's weights behind a link",
        "inference/tensorrt/files.py",
        "if not stat.S_ISREG(found.st_mode):",
        "if stat.S_ISDIR(found.st_mode):",
        f"{_WRONG}[weights_by_a_link]",
    ),
    Mutation(
        "a graph's weights beyond the end of their file",
        "inference/tensorrt/files.py",
        "offset + length > found.st_size",
        "offset > found.st_size",
        f"{_WRONG}[weights_that_go_on_beyond]",
    ),
    Mutation(
        "a tensor hidden in a node",
        "inference/tensorrt/files.py",
        "            yield attribute.t\n",
        "",
        f"{_WRONG}[a_hidden_tensor]",
    ),
    Mutation(
        "a plan of another digest",
        "inference/tensorrt/plan.py",
        "if (found, size) != (plan.sha256, plan.size_bytes):",
        "if size != plan.size_bytes:",
        f"{_PLAN}test_notes_that_do_not_fit_are_refused_before_the_library_is_asked",
    ),
    Mutation(
        "a plan of another version of the library",
        "inference/tensorrt/plan.py",
        "if installed_version(home) != plan.version:",
        "if not installed_version(home):",
        f"{_PLAN}test_a_plan_of_another_version_is_refused_before_it_is_loaded",
    ),
    Mutation(
        "our environment in the builder's process",
        "inference/tensorrt/builder.py",
        'env={"PATH": os.defpath, "TMPDIR": scratch, "HOME": scratch},',
        'env={**os.environ, "TMPDIR": scratch},',
        f"{_PLAN}test_the_builder_sees_nothing_of_our_environment",
    ),
    Mutation(
        "a builder that told and then died",
        "inference/tensorrt/builder.py",
        "if code != 0 or not last",
        "if not last",
        f"{_PLAN}test_however_the_builder_ends_it_is_one_fault_and_nothing_stays",
    ),
    Mutation(
        "what was never written, seen by a step",
        "inference/tensorrt/model.py",
        "            part[:, row, :, filled:] = 0\n",
        "",
        f"{_GRAPH}test_any_division_into_steps_gives_the_logits_of_the_whole",
    ),
    Mutation(
        "a token that does not see itself",
        "inference/tensorrt/graph.py",
        'a.op("LessOrEqual", steps,',
        'a.op("Less", steps,',
        f"{_GRAPH}test_each_architecture_gives_pytorchs_logits",
    ),
    Mutation(
        "a prompt for another model in Triton",
        "inference/tensorrt/triton_session.py",
        "if found != wanted:",
        "if set(found) != set(wanted):",
        "tests/inference/test_step_triton.py::test_a_model_of_another_signature_gets_no_prompt",
    ),
)
