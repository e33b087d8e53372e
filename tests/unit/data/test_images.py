"""Pictures of rows: marks, columns and parts to places in a chat, and what is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.catalog.agents import AGENT_FORMATS
from hpcbench.data.columns import RowLayout
from hpcbench.data.images import ImageCheck, ImageSource
from hpcbench.data.row_reader import Chat, RowReader
from hpcbench.data.rows import Place, PlacedRow
from hpcbench.errors import DataError

PIL_Image = pytest.importorskip("PIL.Image")
ANSWER = {"role": "assistant", "content": "a"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("x.png", "y.png"):
        PIL_Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "text.png").write_text("no picture")
    PIL_Image.effect_noise((64, 64), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    return tmp_path


def read(row: dict[str, Any], folder: Path, *, check: ImageCheck | None = None, **layout: Any) -> Chat:
    agent = AGENT_FORMATS.lookup("react")
    assert agent is not None
    reader = RowReader(agent=agent, layout=RowLayout(**layout), images=check or ImageCheck(num_decoded=9))
    return reader.read_placed(PlacedRow(row, Place(str(folder / "rows.jsonl"), "line", 3)))


def refusal(row: dict[str, Any], folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(row, folder)
    return caught.value.message.removeprefix(f"{folder}/rows.jsonl: line 3: ").replace(str(folder), "")


def image(folder: Path, name: str = "x.png") -> dict[str, Any]:
    return {"type": "image", "image": ImageSource(path=folder / name)}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({"query": "<image>q", "response": "a", "images": ["x.png"]}, ["x.png", "q"]),
        ({"query": "q", "response": "a", "images": ["x.png"]}, ["x.png", "q"]),
        ({"query": "q", "response": "a", "image": "x.png", "images": None}, ["x.png", "q"]),
        ({"query": "q", "response": "a", "images": "x.png", "image": False}, ["x.png", "q"]),
        ({"query": "q<image>r<image>", "response": "a", "images": ["x.png", "y.png"]}, ["q", "x.png", "r", "y.png"]),
        ({"query": "Picture 1:<img>x.png</img>\nq", "response": "a"}, ["Picture 1:", "x.png", "\nq"]),
        (
            {
                "conversations": [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}],
                "image": "x.png",
            },
            ["x.png", "\nq"],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}, text("q")]}, ANSWER], "images": ["x.png"]},
            ["x.png", "q"],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "image": "x.png"}, text("q")]}, ANSWER]},
            ["x.png", "q"],
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "file://x.png"}}, text("q")],
                    },
                    ANSWER,
                ]
            },
            ["x.png", "q"],
        ),
    ],
)
def test_pictures_come_where_marks_columns_and_parts_say(folder: Path, row: dict[str, Any], names: list[str]) -> None:
    chat = read(row, folder)
    expected = [image(folder, name) if name.endswith(".png") else text(name) for name in names]
    assert chat.messages[0] == {"role": "user", "content": expected}
    assert chat.messages[-1]["content"] == "a"
    assert chat.images == tuple(part["image"] for part in expected if part["type"] == "image")


def test_a_later_turn_has_its_picture_and_texts_without_one_stay_texts(folder: Path) -> None:
    row = {"query": "<image>r", "response": "b", "history": [["q", "a"]], "images": ["x.png"]}
    asked, answered, again, _ = read(row, folder).messages
    assert (asked["content"], answered["content"]) == ("q", "a")
    assert again["content"] == [image(folder), text("r")]


def test_a_row_may_hold_the_bytes_of_its_pictures(folder: Path) -> None:
    data = (folder / "x.png").read_bytes()
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    for value in ({"bytes": data, "path": "gone.png"}, url):
        assert read({"query": "q", "response": "a", "images": [value]}, folder).images == (ImageSource(data=data),)


def test_a_registry_names_the_column_of_pictures(folder: Path) -> None:
    from hpcbench.data.columns import Part

    columns = {Part.QUESTION: "ask", Part.ANSWER: "say", Part.IMAGES: "pics"}
    assert read({"ask": "q", "say": "a", "pics": ["x.png"]}, folder, columns=columns).images


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"query": "q", "response": "a", "images": ["gone.png"]},
            "no such image: /gone.png; expected: an image file, its path relative to the data's folder",
        ),
        (
            {"query": "q", "response": "a", "images": ["text.png"]},
            "/text.png: not an image that Pillow can read; expected: a PNG or JPEG, for example",
        ),
        ({"query": "q", "response": "a", "images": ["x.png", 5]}, "images: image 2: number 5; expected: the path of "),
        (
            {"query": "<image><image>q", "response": "a", "images": ["x.png"]},
            "response: message 1: <image> without an image left for it; expected: one image for each mark",
        ),
        (
            {"query": "<image>q", "response": "a", "images": ["x.png", "y.png"]},
            "response: 2 images and 1 places for them; expected: one <image> for each image, or none",
        ),
        (
            {"query": "q", "response": "<image>", "images": ["x.png"]},
            "response: message 2: an image in a turn of the assistant; expected: images in questions",
        ),
        (
            {"query": "<image><video>q", "response": "a", "images": ["x.png"]},
            "response: message 1: <video>; expected: images and text alone",
        ),
        ({"query": "q", "response": "a", "videos": ["x.mp4"]}, "videos: list of 1; expected: text and images, which "),
        ({"query": "q", "response": "a", "audios": ["x.wav"]}, "audios: list of 1; expected: text and images, which "),
        (
            {"query": "<image>q", "response": "<ref>a cat</ref><box>(1,2)</box>", "images": ["x.png"]},
            "response: message 2: <ref>, a mark of grounding; expected: images without places in them",
        ),
        (
            {"query": "<image>q", "response": "a", "images": ["x.png"], "objects": {"bbox": [[1, 2, 3, 4]]}},
            "objects: grounding, which hpcbench does not train; expected: images without places in them",
        ),
        (
            {"query": "q", "response": "a", "images": ["https://example.org/x.png"]},
            "images: 'https://example.org/x.png' is on the internet, where jobs read nothing; expected: a downloaded ",
        ),
        ({"text": "t", "images": ["x.png"]}, "images: list of 1 beside plain text; expected: images in questions"),
    ],
)
def test_what_cannot_be_trained_on_is_named(folder: Path, row: dict[str, Any], message: str) -> None:
    if "text" in row:
        from hpcbench.data.columns import Part

        with pytest.raises(DataError, match=r"beside plain text"):
            read(row, folder, columns={Part.TEXT: "text", Part.IMAGES: "images"})
        return
    assert refusal(row, folder).startswith(message)


def test_a_picture_that_was_cut_off_is_found_where_it_is_decoded(folder: Path) -> None:
    row = {"query": "q", "response": "a", "images": ["cut.png"]}
    assert refusal(row, folder).startswith("/cut.png: a broken image: ")
    assert read(row, folder, check=ImageCheck()).images


def test_beyond_its_limits_the_check_says_what_it_left_out(folder: Path) -> None:
    check = ImageCheck(num_opened=1)
    for name in ("x.png", "x.png", "gone.png"):
        read({"query": "q", "response": "a", "images": [name]}, folder, check=check)
    assert check.remarks() == ("not checked: 1 of its images, beyond the first 1",)


def test_without_pillow_a_missing_file_is_found_and_the_rest_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcbench.data.images.has_pillow", lambda: False)
    check = ImageCheck()
    read({"query": "q", "response": "a", "images": ["text.png"]}, folder, check=check)
    assert check.remarks() == ("not checked: what is in its images, which needs Pillow (hpcbench-llm[images])",)
    with pytest.raises(DataError, match="no such image"):
        read({"query": "q", "response": "a", "images": ["gone.png"]}, folder, check=check)


def test_rows_without_a_folder_name_no_relative_path() -> None:
    agent = AGENT_FORMATS.lookup("react")
    assert agent is not None
    row = {"query": "q", "response": "a", "images": ["x.png"]}
    with pytest.raises(DataError, match=r"'x\.png' is relative, and the rows are in no folder"):
        RowReader(agent=agent, images=ImageCheck()).read_placed(PlacedRow(row, Place("someone/pictures", "row", 1)))


def test_rows_of_a_file_have_paths_relative_to_it(folder: Path) -> None:
    from hpcbench.data.files import read_rows

    (folder / "rows.jsonl").write_text(json.dumps({"query": "q", "response": "a", "images": ["x.png"]}) + "\n")
    agent = AGENT_FORMATS.lookup("react")
    assert agent is not None
    reader = RowReader(agent=agent, images=ImageCheck())
    chats = [reader.read_placed(row) for row in read_rows(folder / "rows.jsonl", split="train")]
    assert [source.path for source in chats[0].images] == [folder / "x.png"]
