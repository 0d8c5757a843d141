"""A scripted model for Triton's Python backend, in the dialect that its configuration names.

What it does, the last message says: `say N` answers with N words, `slow [N]` one word in 50 ms, for
ever or N times, `hang` one word and then nothing, `fail` an error with the prompt in it, `bad` text
that is no UTF-8, `more` more tokens than were asked for, `huge` a word of 2 MiB, `die` takes the
stub along. `sealgate_steps` in Triton's metrics counts the words.
"""

import base64
import json
import os
import queue
import threading
import time

import numpy as np
import triton_python_backend_utils as backend

FINAL = backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL
WORDS = ("one ", "two ", "three ", "four ", "fünf ", "six ")


class TritonPythonModel:
    def initialize(self, args):
        told = json.loads(args["model_config"])["parameters"]
        self.dialect = told["dialect"]["string_value"]
        self.description = base64.b64decode(told["description"]["string_value"])
        self.digest = np.frombuffer(bytes.fromhex(told["digest"]["string_value"]), np.uint8)
        self.family = backend.MetricFamily(
            name="sealgate_steps", description="words", kind=backend.MetricFamily.COUNTER
        )
        self.steps = self.family.Metric(labels={"model": args["model_name"]})
        self.seen = queue.SimpleQueue()

    def execute(self, requests):
        for request in requests:
            values = {}
            for each in request.inputs():
                values[each.name()] = each.as_numpy().reshape(-1).tolist()
            sender = request.get_response_sender()
            threading.Thread(target=self.answer, args=(values, sender), daemon=True).start()

    def answer(self, values, sender):
        if self.dialect == "sealgate" and values.get("describe"):
            sender.send(response(text("description", self.description)), flags=FINAL)
            return
        asked = self.asked(values)
        kind, _, number = asked.partition(" ")
        if kind == "fail":
            error = backend.TritonError(f"cannot answer {asked}")
            sender.send(backend.InferenceResponse([], error=error), flags=FINAL)
            return
        if kind == "die":
            os._exit(1)
        said = ""
        for at in range(1 if kind == "hang" else int(number or self.most(kind))):
            if sender.is_cancelled():
                sender.send(flags=FINAL)
                return
            word = WORDS[at % len(WORDS)]
            said += word
            self.steps.increment(1)
            sender.send(response(*self.piece(values, kind, word, said, at)))
            if kind in ("slow", "bad", "more", "huge"):
                time.sleep(0.05)
        while kind == "hang" and not sender.is_cancelled():
            time.sleep(0.02)
        self.end(sender, at + 1)

    def most(self, kind):
        return 1 << 30 if kind in ("slow", "bad", "more", "huge") else 2

    def asked(self, values):
        if self.dialect == "sealgate":
            return values["contents"][-1].decode()
        # The prompt is rendered by the caller: what it says last is before the assistant's turn.
        prompt = values["text_input"][0].decode()
        return prompt.rpartition("<|im_end|>")[0].rpartition("user\n")[2]

    def piece(self, values, kind, word, said, at):
        raw = {"bad": b"\xff\xfe", "huge": b"x" * (1 << 21)}.get(kind, word.encode())
        if self.dialect == "sealgate":
            first = [backend.Tensor("model", self.digest)] if at == 0 else []
            tokens = 1_000_000 if kind == "more" else 1
            return [text("text", raw), numbers("tokens", tokens), *first]
        if self.dialect == "accumulating":
            # A character that is not whole yet is what a detokeniser makes of it.
            return [text("text_output", (said[:-1] + "\N{REPLACEMENT CHARACTER}").encode())]
        if self.dialect == "vllm" and "return_finish_reason" in values:
            counts = backend.Tensor("num_output_tokens", np.array(2, np.uint32))
            return [text("text_output", raw), text("finish_reason", b"None"), counts]
        return [text("text_output", raw)]

    def end(self, sender, words):
        if self.dialect == "sealgate":
            usage = numbers("usage", 7, words)
            sender.send(response(text("finish_reason", b"stop"), usage), flags=FINAL)
        elif self.dialect == "vllm":
            reason = text("finish_reason", b"length")
            sender.send(response(text("text_output", b""), reason), flags=FINAL)
        elif self.dialect == "accumulating":
            said = "".join(WORDS[at % len(WORDS)] for at in range(words))
            sender.send(response(text("text_output", said.encode())), flags=FINAL)
        else:
            sender.send(flags=FINAL)


def response(*outputs):
    return backend.InferenceResponse(list(outputs))


def text(name, raw):
    return backend.Tensor(name, np.array([raw], np.object_))


def numbers(name, *values):
    return backend.Tensor(name, np.array(values, np.int32))
