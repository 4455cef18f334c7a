"""The incident log on both databases."""

import inspect
import threading

import sqlalchemy as sa

from schemas.ids import incident_id
from service.storage.incident_log import IncidentLog
from tests.builders import NOW, an_entry


def test_an_entry_that_comes_twice_is_there_once(store: sa.Engine) -> None:
    """If this breaks, every replay after a crash doubles the story of an incident."""
    log = IncidentLog(store)
    opened, note = an_entry(kind="opened"), an_entry(text="two")

    assert (2, 1) == (log.add([opened, note]), log.add([note, an_entry(text="three")]))

    story = log.story(opened.incident_id)
    assert ["a note", "two", "three"] == [entry.text for _, entry in story]
    assert story[0][1] == opened


def test_an_incident_is_found_by_a_prefix_that_only_it_has(store: sa.Engine) -> None:
    """If this breaks, `incidents 3f2a` shows another incident, or none."""
    log = IncidentLog(store)
    log.add([an_entry(incident_id=name) for name in ("aa11", "aa22", "bb", "bb_33")])

    found = {prefix: log.incident(prefix) for prefix in ("aa1", "aa", "bb", "b", "b%", "bb_", "")}

    ids = {prefix: incident and incident.incident_id for prefix, incident in found.items()}
    assert {
        "aa1": "aa11", "aa": None, "bb": "bb", "b": None, "b%": None, "bb_": "bb_33", "": None
    } == ids  # fmt: skip


def test_incidents_come_newest_first_without_entries(store: sa.Engine) -> None:
    """If this breaks, the page shows last month's incidents first, or is megabytes long."""
    log = IncidentLog(store)
    for number, model in enumerate(["m1", "m2", "m1"]):
        name = incident_id(model, f"v{number}", "r")
        log.add([an_entry(incident_id=name, model=model, version=f"v{number}", kind="opened")])
    log.add([an_entry(incident_id=incident_id("m1", "v0", "r"), model="m1", text="late")])

    versions = [incident.version for incident in log.incidents(10)]

    assert ["v2", "v1", "v0"] == versions
    assert ["v2"] == [incident.version for incident in log.incidents(1, "m1")]
    assert [] == log.incidents(1)[0].entries


def test_readers_that_come_back_miss_no_entry(store: sa.Engine) -> None:
    """If this breaks, two writers at once make a notification that is never sent."""
    log = IncidentLog(store)
    seen: list[str] = []
    position = 0
    writers = [
        threading.Thread(
            target=lambda w=w: [log.add([an_entry(text=f"{w}-{n}")]) for n in range(40)]
        )
        for w in range(3)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers) or log.since(position, 1):
        for sequence, entry in log.since(position, 10):
            assert sequence > position
            position = sequence
            seen.append(entry.text)

    assert {f"{w}-{n}" for w in range(3) for n in range(40)} == set(seen)
    assert len(seen) == len(set(seen))
    assert position == log.last()


def test_the_log_has_no_verb_that_changes_an_entry(sqlite_store: sa.Engine) -> None:
    """If this breaks, the record of a bad night can be edited by our own code."""
    statements: list[str] = []
    sa.event.listen(
        sqlite_store, "before_cursor_execute", lambda _c, _u, text, *_: statements.append(text)
    )
    log = IncidentLog(sqlite_store)
    log.add([an_entry()])
    log.add([an_entry(reason="changed")])

    assert "test" == log.story(an_entry().incident_id)[0][1].reason
    assert not [text for text in statements if text.split()[0] in ("UPDATE", "DELETE", "REPLACE")]
    verbs = {name for name, _ in inspect.getmembers(IncidentLog, inspect.isfunction)}
    assert {
        "add",
        "anchor",
        "incident",
        "incidents",
        "last",
        "links",
        "proposal",
        "since",
        "story",
    } == {verb for verb in verbs if not verb.startswith("_")}


def test_names_that_a_database_refuses_do_not_stop_the_log(store: sa.Engine) -> None:
    """If this breaks, one model named with a NUL stops the incident log on PostgreSQL."""
    log = IncidentLog(store)
    log.add([an_entry(model="a\0b", text="x\0y", data={"deep": {"z": "\0"}})])

    (incident,) = log.incidents(5, "a\0b")

    assert "a\0b" == incident.model


def test_a_proposal_is_found_by_its_command(store: sa.Engine) -> None:
    """If this breaks, nobody can approve."""
    log = IncidentLog(store)
    log.add([
        an_entry(kind="proposed", data={"command_id": "c1"}, text="p"),
        an_entry(kind="command", data={"command_id": "c2"}, text="c"),
    ])  # fmt: skip

    found = log.proposal("c1")

    assert found is not None
    assert ("p", NOW) == (found.text, found.at)
    assert log.proposal("c2") is None
