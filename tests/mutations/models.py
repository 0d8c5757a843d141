"""What is broken of the model store: signatures, pins, seals, names, formats."""

from tests.mutations.mutation import Mutation

_STORE = "tests/inference/test_store.py::"
_ADDING = "tests/inference/test_store_adding.py::"
_SEALING = "tests/inference/test_store_sealing.py::"
_FORMATS = "tests/inference/test_store_formats.py::"

MODELS = (
    Mutation(
        "a model's signature",
        "inference/store/signing.py",
        "    except (InvalidSignature, ValueError):\n"
        "        raise ModelFileError(Fault.SIGNATURE) from None\n",
        "    except (InvalidSignature, ValueError):\n        return\n",
        f"{_STORE}test_a_signature_of_another_key_is_refused",
    ),
    Mutation(
        "a signature made for something else",
        "inference/store/signing.py",
        'return f"{SCHEMA}\\n".encode() + manifest.canonical()',
        "return manifest.canonical()",
        f"{_STORE}test_a_signature_of_another_key_is_refused",
    ),
    Mutation(
        "an unsigned model",
        "inference/store/signing.py",
        "        raise ModelFileError(Fault.UNSIGNED)\n",
        "        return\n",
        f"{_STORE}test_an_unsigned_model_is_refused_unless_told_otherwise",
    ),
    Mutation(
        "what was added is not packaged",
        "inference/store/store.py",
        '(self.rules.signed == "packaged" and entry.packaged)',
        'self.rules.signed == "packaged"',
        f"{_STORE}test_an_unsigned_model_is_refused_unless_told_otherwise",
    ),
    Mutation(
        "a manifest belongs where it lies",
        "inference/store/store.py",
        "if (manifest.name, manifest.version) != (name, version) or manifest.canonical() != text:",
        "if manifest.canonical() != text:",
        f"{_STORE}test_a_manifest_that_was_changed_after_signing_is_refused",
    ),
    Mutation(
        "a model's digest",
        "inference/store/store.py",
        "    if found != file.sha256:\n",
        "    if not found:\n",
        f"{_STORE}test_a_file_that_is_not_the_pinned_one_is_refused",
    ),
    Mutation(
        "risk class",
        "inference/store/rules.py",
        "_RISKS.index(manifest.risk_class) > _RISKS.index(top)",
        "_RISKS.index(manifest.risk_class) > len(_RISKS)",
        f"{_STORE}test_what_may_not_be_loaded_here_is_not",
    ),
    Mutation(
        "links on the way to a file",
        "inference/store/below.py",
        "step = _step(part, _FOLDER | os.O_NOFOLLOW, handle)",
        "step = _step(part, _FOLDER, handle)",
        f"{_STORE}test_a_link_out_of_the_store_is_refused",
    ),
    Mutation(
        "a link at the end",
        "inference/store/below.py",
        "_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC",
        "_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC",
        f"{_STORE}test_a_link_out_of_the_store_is_refused",
    ),
    Mutation(
        "a second name of a file",
        "inference/store/below.py",
        "(alone and about.st_nlink != 1)",
        "(alone and about.st_nlink < 1)",
        f"{_STORE}test_nothing_but_a_file_of_its_own_is_read",
    ),
    Mutation(
        "what was checked is what is read",
        "inference/store/store.py",
        '_link(paths[file.path], f"/proc/{os.getpid()}/fd/{handle}")',
        "_link(paths[file.path], str((self.folder / place).absolute()))",
        f"{_STORE}test_what_was_checked_is_what_is_read_whoever_moves_the_names",
    ),
    Mutation(
        "the index of a sealed chunk",
        "inference/store/sealing.py",
        "place = _PLACE.pack(index, final)",
        "place = _PLACE.pack(0, final)",
        f"{_SEALING}test_chunks_out_of_place_do_not_open",
    ),
    Mutation(
        "the last sealed chunk",
        "inference/store/sealing.py",
        "place = _PLACE.pack(index, final)",
        "place = _PLACE.pack(index, 0)",
        f"{_SEALING}test_a_file_that_was_cut_off_between_two_chunks_does_not_open",
    ),
    Mutation(
        "a sealed chunk's file",
        "inference/store/sealing.py",
        "_NAME.pack(len(name)), name, place",
        "_NAME.pack(0), place",
        f"{_SEALING}test_a_chunk_of_another_file_or_model_does_not_open",
    ),
    Mutation(
        "a sealed chunk's model",
        "inference/store/sealing.py",
        "(_LABEL, self.model_digest, ",
        "(_LABEL, ",
        f"{_SEALING}test_a_chunk_of_another_file_or_model_does_not_open",
    ),
    Mutation(
        "what a data key is bound to",
        "inference/store/sealing.py",
        'return f"{SCHEMA}|{manifest.digest.hex()}".encode()',
        'return f"{SCHEMA}|{manifest.name}".encode()',
        f"{_STORE}test_a_data_key_of_another_model_opens_nothing",
    ),
    Mutation(
        "names that lead elsewhere",
        "inference/store/manifest.py",
        "all(_PART.fullmatch(part) is not None for part in parts)",
        "all(parts)",
        f"{_ADDING}test_a_name_that_leads_elsewhere_is_refused",
    ),
    Mutation(
        "links in a tar",
        "inference/store/sources.py",
        "    if not entry.isreg():\n        raise ModelFileError(Fault.LINK, member=path)\n",
        "    if not entry.isreg():\n        return None\n",
        f"{_ADDING}test_links_and_devices_in_a_tar_are_refused",
    ),
    Mutation(
        "archives that unpack to more",
        "inference/store/sources.py",
        "if unpacked > archive_bytes * self.ratio_max:",
        "if unpacked < archive_bytes:",
        f"{_ADDING}test_what_the_store_does_not_take_is_refused",
    ),
    Mutation(
        "pickles by their first bytes",
        "inference/store/formats.py",
        "    if start.startswith(_PICKLE_STARTS):\n",
        "    if start == _PICKLE_STARTS:\n",
        f"{_FORMATS}test_a_sound_file_is_taken_and_nothing_else_under_its_name",
    ),
    Mutation(
        "two files in one",
        "inference/store/gguf_check.py",
        "not 0 <= left < alignment",
        "left < 0",
        f"{_FORMATS}test_a_sound_file_is_taken_and_nothing_else_under_its_name",
    ),
    Mutation(
        "an older version for the newest",
        "inference/store/store.py",
        "        return versions[-1]\n",
        "        return versions[0]\n",
        f"{_STORE}test_an_older_version_does_not_pass_for_the_newest_that_is_damaged",
    ),
    Mutation(
        "something between the tensors",
        "inference/store/gguf_check.py",
        "offset != _aligned(end, alignment)",
        "offset < end",
        f"{_FORMATS}test_a_gguf_that_lies_about_its_sizes_is_refused",
    ),
    Mutation(
        "an ONNX model's other files",
        "inference/store/onnx_check.py",
        '        if message == "tensor":\n',
        '        if message == "tensors":\n',
        f"{_FORMATS}test_a_tensor_in_another_file_is_refused_wherever_it_stands",
    ),
    Mutation(
        "one changes a store at a time",
        "inference/store/changing.py",
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        f"{_ADDING}test_one_changes_the_store_at_a_time",
    ),
    Mutation(
        "a crash's plaintext",
        "inference/store/private.py",
        "            shutil.rmtree(path, ignore_errors=True)\n"
        '            log.info("models.leftover_removed")\n',
        "            pass\n",
        f"{_STORE}test_what_a_crash_left_goes_with_the_next_start",
    ),
    Mutation(
        "a publisher's signature",
        "inference/store/openssf.py",
        "        key.verify(value, signed, ec.ECDSA(_HASHES[key.curve.key_size]))\n",
        "        assert value and signed\n",
        "tests/inference/test_store_openssf.py::test_another_s_key_is_not_the_publisher_s",
    ),
)
