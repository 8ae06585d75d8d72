"""SIGKILL at random moments: what was acknowledged is there, what serves serves again, nothing stays behind."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time

from septet_platform import Platform

ROUNDS = 5
ECHO = {"main.py": "def handle(request, context):\n    return request.body\n"}


def test_what_was_acknowledged_survives_kills_at_random(own_platform: Platform) -> None:
    platform = own_platform.start()
    dice = random.Random(20261124)
    platform.deploy("steady", ECHO)
    written: dict[str, str] = {}
    deleted: set[str] = set()
    for round_ in range(ROUNDS):
        stop = threading.Event()

        def write(round_: int = round_, stop: threading.Event = stop) -> None:
            n = 0
            while not stop.is_set():
                n += 1
                name = f"ns-{round_}-{n}"
                with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                    made = platform.api("PUT", f"/namespaces/{name}", {"labels": {"n": str(n)}, "spec": {}})
                    written[name] = made["meta"]["uid"] if "meta" in made else made["namespace"]["meta"]["uid"]
                    if n % 5 == 0:
                        # Asked is enough: it may have happened without its answer having come.
                        deleted.add(name)
                        platform.request("DELETE", f"/septet/v1/namespaces/{name}")

        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(dice.uniform(0.2, 1.0))
        platform.kill()
        stop.set()
        writer.join()
        platform.start()
        listed = {item["meta"]["name"]: item["meta"] for item in platform.api("GET", "/namespaces?limit=1000")["items"]}
        for name, uid in written.items():
            if name not in deleted:
                assert name in listed, f"{name} was acknowledged and is gone"
                assert listed[name]["uid"] == uid
        assert platform.call("steady", body=b"again").body == b"again"
    assert len(written) > ROUNDS * 3
    assert platform.stop() == 0


def test_a_second_platform_on_the_same_data_is_refused(own_platform: Platform) -> None:
    own_platform.start()
    second = Platform(own_platform.data)
    second.log = own_platform.data.parent / "second.log"
    try:
        second.start(timeout=20)
    except AssertionError as error:
        assert "another septet runs on" in str(error)
    else:
        second.stop()
        raise AssertionError("two platforms ran on one data directory")


def test_sigterm_lets_running_calls_end(own_platform: Platform) -> None:
    platform = own_platform.start()
    source = {"main.py": "import time\ndef handle(request, context):\n    time.sleep(1.5)\n    return 'finished'\n"}
    platform.deploy("slow", source)
    answers: list[str] = []
    caller = threading.Thread(target=lambda: answers.append(platform.call("slow", body=b"x").text))
    caller.start()
    time.sleep(0.6)
    assert platform.stop() == 0
    caller.join()
    assert answers == ["finished"]
