"""Frames of videos and folders, and clips made of them."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage import data

from wic_layers import tasks
from wic_layers.errors import WICDependencyError, WICFileError
from wic_layers.models import IICNet
from wic_layers.pictures import psnr, read_image, write_png
from wic_layers.pictures.video import is_clip, read_frames


def pan(count, side=64):
    """A camera that moves over a photograph."""
    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)
    return [photo[:, 40 : 40 + side, 4 * k : 4 * k + side].contiguous() for k in range(count)]


@pytest.fixture
def video(tmp_path):
    """Seven frames as a video file, without loss."""
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "bgr0"
        for frame in pan(7):
            array = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
            packets = stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24"))
            container.mux(packets)
        container.mux(stream.encode())
    return path


def test_a_video_gives_its_frames(video):
    frames = list(read_frames(video))
    assert len(frames) == 7
    for found, expected in zip(frames, pan(7), strict=True):
        assert torch.equal(found, expected)


def test_a_folder_gives_its_images_by_their_numbers(tmp_path):
    for index, frame in enumerate(pan(11), start=1):
        write_png(frame, tmp_path / f"{index}.png")
    assert all(torch.equal(*pair) for pair in zip(read_frames(tmp_path), pan(11), strict=True))
    assert is_clip(tmp_path)
    assert is_clip("a.MP4")
    assert not is_clip("a.PNG")


@pytest.mark.parametrize("name", ["clip-3", "clip-5-x2"])
def test_clips_of_a_video(name, video, tmp_path):
    task = tasks.TASKS[name]
    torch.manual_seed(0)
    net = IICNet(3 * task.images, 3, scale=task.scale, couplings=1, growth=4, features=2)
    net.save_pretrained(tmp_path / "w")
    found = list(tasks.pack_clip(name, video, tmp_path / "out", model=tmp_path / "w"))
    names = [f"clip-{index:04d}.png" for index in range(1, -(-7 // task.images) + 1)]
    assert [each.path.name for each in found] == names
    assert [len(each.returns) for each in found][-1] == 7 % task.images
    frames = pan(7)
    for each in found:
        back = tasks.unpack_file(each.path, tmp_path / each.path.name, model=tmp_path / "w")
        for image, value in zip(back, each.psnr_back, strict=True):
            assert psnr(read_image(image.path), frames.pop(0)) == pytest.approx(value)
    assert not frames
    with pytest.raises(WICFileError, match=r"holds more than . frames; expected a folder"):
        list(tasks.pack_clip(name, video, tmp_path / "one.png", model=tmp_path / "w"))
    with pytest.raises(WICFileError, match=r"clip-0001\.png exists"):
        list(tasks.pack_clip(name, video, tmp_path / "out", model=tmp_path / "w"))


def test_a_turned_video_is_seen_upright(monkeypatch, video):
    """As phones record them; the angle is FFmpeg's, against the clock."""
    av = pytest.importorskip("av")
    frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    turned = SimpleNamespace(
        to_ndarray=lambda format: frame, rotation=-90, width=4, height=2
    )  # fmt: skip
    monkeypatch.setattr(av.container.InputContainer, "decode", lambda *_: [turned])
    (found,) = read_frames(video)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.rot90(frame, -1))


def test_what_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(WICFileError, match=r"none\.mp4 does not exist"):
        list(read_frames(tmp_path / "none.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(WICFileError, match=r"text\.mp4 cannot be read as a video: \w+"):
        list(read_frames(tmp_path / "text.mp4"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WICFileError, match="found none"):
        list(read_frames(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(WICDependencyError, match=r"pip install 'wic-layers\[video\]'"):
        list(read_frames(tmp_path / "text.mp4"))


def test_a_file_with_sound_alone(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(WICFileError, match=r"sound\.wav cannot be read as a video: it holds no"):
        list(read_frames(path))


def test_playlists_read_no_other_files(video, tmp_path):
    pytest.importorskip("av")
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile {video}\n",
    }
    for name, text in lists.items():
        for place in (tmp_path / name, tmp_path / f"{name}.mp4"):
            place.write_text(text)
            with pytest.raises(WICFileError, match="cannot be read as a video"):
                list(read_frames(place))


def test_frames_of_too_many_pixels_are_refused_before_they_are_decoded(video, monkeypatch):
    av = pytest.importorskip("av")
    monkeypatch.setattr(av.container.InputContainer, "decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(WICFileError, match=r"clip\.mkv, 64x64, has more than 4095 pixels"):
        list(read_frames(video, max_pixels=4095))


def test_a_clip_is_held_a_few_frames_at_a_time(video, tmp_path, monkeypatch):
    """What is refused for its number of frames decodes none; else no more than a file takes."""
    from wic_layers.codec import file_verbs

    task = tasks.TASKS["clip-3"]
    torch.manual_seed(0)
    net = IICNet(9, 3, couplings=1, growth=4, features=2)
    net.save_pretrained(tmp_path / "w")
    count = 0

    def counted(*args, **kwargs):
        nonlocal count
        for frame in read_frames(*args, **kwargs):
            count += 1
            yield frame

    monkeypatch.setattr(file_verbs, "read_frames", counted)
    with pytest.raises(WICFileError, match="holds more than 3 frames"):
        next(tasks.pack_clip("clip-3", video, tmp_path / "one.png", model=tmp_path / "w"))
    assert count == 0
    next(tasks.pack_clip("clip-3", video, tmp_path / "out", model=tmp_path / "w"))
    assert count == task.images
