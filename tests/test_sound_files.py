"Codecs, headers that lie or say nothing, broken-off files, absurd samples: what is there is read, what is not is refused, and the scan says what reading does."
import io
import os
import struct

import numpy as np
import pytest
import soundfile
import torch

from specgen.audio import check_audio, read_audio, resample, write_audio
from specgen.core import SpecgenError
from specgen.datasets import load_recordings
from specgen.sound_headers import mp3_frame

RATE = 16000
SOUND = (0.4 * np.sin(np.arange(32000) / 9) * (1 + 0.3 * np.sin(np.arange(32000) / 700))).astype(np.float32)


def encoded(kind, subtype=None, sound=SOUND, rate=RATE, **settings):
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=kind, subtype=subtype, **settings)
    return file.getvalue()


def decoded(raw):
    "libsndfile's own samples."
    with soundfile.SoundFile(io.BytesIO(raw)) as file:
        return torch.from_numpy(file.read(file.frames, dtype="float32"))


def put(path, raw):
    path.write_bytes(raw)
    return path


SUFFIX = {"WAVEX": "wav", "RF64": "wav"}
CODECS = [(kind, subtype) for kind in ("WAV", "WAVEX", "AU", "AIFF", "W64", "CAF", "RF64", "FLAC", "OGG", "MP3")
          for subtype in soundfile.available_subtypes(kind)
          if not subtype.startswith(("DWVW", "MPEG")) or (kind, subtype) == ("MP3", "MPEG_LAYER_III")]


@pytest.mark.parametrize("kind,subtype", CODECS, ids="-".join)
def test_every_codec_is_read_and_half_a_file_is_refused(tmp_path, kind, subtype):
    raw, name = encoded(kind, subtype, rate=8000), f"x.{SUFFIX.get(kind, kind.lower())}"
    path, wanted = put(tmp_path / name, raw), decoded(raw)
    seconds, rate = check_audio(path)
    assert rate == 8000 and abs(seconds * rate - len(wanted)) < 1e-6
    assert torch.equal(read_audio(path, check=True)[0], wanted)
    assert check_audio(path, raw) == (seconds, rate)
    answer = check_audio(put(path, raw[: len(raw) // 2]))
    assert isinstance(answer, str) and answer.startswith(("truncated", "cannot be read as sound"))


def test_big_endian_riff_is_read_and_its_half_refused(tmp_path):
    raw = encoded("WAV", endian="BIG")
    assert raw[:4] == b"RIFX" and check_audio(put(tmp_path / "x.wav", raw)) == (2.0, RATE)
    assert torch.equal(read_audio(tmp_path / "x.wav")[0], decoded(raw))
    assert check_audio(put(tmp_path / "x.wav", raw[:30000])).startswith("truncated: the header promises 64000 bytes")


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFF0 - 36, 0x7FFFF000, 0x7FFFFFFF, 0x80000000], ids=hex)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "ULAW", "FLOAT"])
def test_a_wav_that_says_nothing_of_its_length_is_read_in_full(tmp_path, subtype, size):
    raw = encoded("WAV", subtype)
    at = raw.find(b"data") + 4
    path = put(tmp_path / "x.wav", raw[:at] + struct.pack("<I", size) + raw[at + 4 :])
    assert check_audio(path) == (2.0, RATE) and torch.equal(read_audio(path)[0], decoded(raw))
    ds = put(tmp_path / "x.wav", raw[:at] + struct.pack("<I", 70000 * 4) + raw[at + 4 :])
    assert check_audio(ds).startswith("truncated: the header promises 280000 bytes")


def test_a_wav_that_is_empty_stays_so(tmp_path):
    raw = encoded("WAV")
    at = raw.find(b"data") + 4
    path = put(tmp_path / "x.wav", raw[:at] + bytes(4) + b"LIST\x0c\0\0\0INFOISFT\x04\0\0\0")
    assert check_audio(path) == "holds no samples"
    with pytest.raises(SpecgenError, match="holds no samples"):
        read_audio(path)


@pytest.mark.parametrize("length", [32000, 31999, 30000, 4096, 4097])
def test_a_flac_without_a_count_is_read_in_full(tmp_path, length):
    raw = encoded("FLAC", sound=SOUND[:length])
    told = int.from_bytes(raw[18:26], "big")
    for count in (0, (1 << 36) - 1):
        path = put(tmp_path / "x.flac", raw[:18] + (told >> 36 << 36 | count).to_bytes(8, "big") + raw[26:])
        assert check_audio(path) == (length / RATE, RATE) and torch.equal(read_audio(path)[0], decoded(raw))
        assert isinstance(check_audio(put(path, path.read_bytes()[:-1])), str)
    path = put(tmp_path / "x.flac", raw[:18] + (told >> 36 << 36 | 1 << 35).to_bytes(8, "big") + raw[26:])
    assert isinstance(check_audio(path), str)
    with pytest.raises(SpecgenError):
        read_audio(path)


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
def test_an_mp3_without_an_index_is_read_in_full(tmp_path, mode):
    sound = np.concatenate([SOUND, 0 * SOUND, np.random.default_rng(0).normal(0, 0.1, 64000), SOUND])
    raw = encoded("MP3", "MPEG_LAYER_III", sound, compression_level=0.3, bitrate_mode=mode)
    assert check_audio(put(tmp_path / "x.mp3", raw)) == (10.0, RATE)
    tag = mp3_frame(raw, 0)[0]
    for front in (b"", b"ID3\x04\0\0\0\0\0\x14" + bytes(20)):
        path = put(tmp_path / "x.mp3", front + raw[tag:] + (b"TAG" + bytes(125) if front else b""))
        assert abs(check_audio(path)[0] - 10) < 0.08 and 160000 <= len(read_audio(path)[0]) < 161300
    answer = check_audio(put(tmp_path / "x.mp3", raw[: len(raw) // 2]))
    assert answer.startswith("truncated: the header promises 160000 samples")


# ---- headers and samples that are wrong

def wav_of(chunks):
    body = b"WAVE" + b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


FORM = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
PLAIN = (SOUND * 32767).astype("<i2").tobytes()
EXTENSIBLE = struct.pack("<HHIIHHHHI", 0xFFFE, 1, RATE, 2 * RATE, 2, 16, 22, 16, 4) + bytes.fromhex("0100000000001000800000aa00389b71")
HEADERS = {
    "plain": wav_of([(b"fmt ", FORM), (b"data", PLAIN)]),
    "odd LIST": wav_of([(b"fmt ", FORM), (b"LIST", b"INFOISFT\x03\0\0\0abc"), (b"data", PLAIN)]),
    "odd LIST not padded": wav_of([(b"fmt ", FORM), (b"data", PLAIN)]).replace(b"data", b"LIST\x03\0\0\0abcdata", 1),
    "two data chunks": wav_of([(b"fmt ", FORM), (b"data", PLAIN), (b"data", PLAIN)]),
    "two formats": wav_of([(b"fmt ", FORM), (b"fmt ", FORM), (b"data", PLAIN)]),
    "format behind": wav_of([(b"data", PLAIN), (b"fmt ", FORM)]),
    "wrong frame width": wav_of([(b"fmt ", FORM[:12] + b"\x03\0" + FORM[14:]), (b"data", PLAIN)]),
    "extensible": wav_of([(b"fmt ", EXTENSIBLE), (b"data", PLAIN)]),
    "a bit of the GUID flipped": wav_of([(b"fmt ", EXTENSIBLE[:30] + bytes([EXTENSIBLE[30] ^ 4]) + EXTENSIBLE[31:]), (b"data", PLAIN)]),
    "2000 channels": wav_of([(b"fmt ", struct.pack("<HHIIHH", 1, 2000, RATE, 4000 * RATE, 4000, 16)), (b"data", PLAIN)]),
    "100 Hz": wav_of([(b"fmt ", struct.pack("<HHIIHH", 1, 1, 100, 200, 2, 16)), (b"data", PLAIN)]),
    "3 GHz": wav_of([(b"fmt ", struct.pack("<HHIIHH", 1, 1, 3 << 30, 0, 2, 16)), (b"data", PLAIN)]),
    "one sample of 1e300": encoded("WAV", "DOUBLE", np.where(np.arange(9000) == 7, 1e300, 0.1 * np.sin(np.arange(9000)))),
    "samples of 1e38": encoded("WAV", "FLOAT", (1e38 * SOUND).astype(np.float32)),
    "samples of 1e38, aiff": encoded("AIFF", "FLOAT", (1e38 * SOUND).astype(np.float32)),
    "stereo that cancels": encoded("WAV", "PCM_16", np.stack([SOUND, -SOUND], 1)),
    "stereo that cancels, flac": encoded("FLAC", "PCM_16", np.stack([SOUND, -SOUND], 1)),
    "stereo, one silent": encoded("WAV", "PCM_16", np.stack([SOUND, 0 * SOUND], 1)),
}
GOOD = ("plain", "odd LIST", "wrong frame width", "extensible", "stereo, one silent")


@pytest.mark.parametrize("kind", HEADERS)
def test_what_the_scan_passes_is_read(tmp_path, kind):
    path = put(tmp_path / f"x.{kind.split(', ')[1] if kind.endswith(('flac', 'aiff')) else 'wav'}", HEADERS[kind])
    answer = check_audio(path)
    assert check_audio(path, HEADERS[kind]) == answer
    if isinstance(answer, str):
        assert kind not in GOOD and "\n" not in answer
        with pytest.raises(SpecgenError, match="x.(wav|flac|aiff): "):
            read_audio(path)
    else:
        assert kind in GOOD and len(read_audio(path)[0]) == round(answer[0] * answer[1]) == 32000
    assert ("cancel" in str(answer)) == ("cancels" in kind) and ("Hz: rates from" in str(answer)) == kind.endswith("Hz")


def test_mutated_wavs_scan_as_they_read(tmp_path):
    "Random bytes in the headers of 300 wavs, by a seed: nothing else than `SpecgenError`, and what the scan passes has as many samples as are read."
    rng, kinds = np.random.default_rng(0), ["plain", "odd LIST", "extensible", "stereo, one silent"]
    for trial in range(300):
        raw = bytearray(HEADERS[kinds[trial % 4]][:4000])
        for _ in range(rng.integers(1, 4)):
            raw[rng.integers(0, 110)] = rng.integers(0, 256)
        path = put(tmp_path / "x.wav", bytes(raw))
        answer = check_audio(path)
        if not isinstance(answer, str):
            found, rate = read_audio(path)
            assert (len(found), rate) == (round(answer[0] * answer[1]), answer[1]), trial


# ---- rates

@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [0, -1, 8000.5, 1, 2**31, 10**12, float("nan"), None, 400_000])
def test_rates_that_cannot_be_written(tmp_path, suffix, rate):
    if rate == 400_000 and suffix in ("wav", "flac"):
        assert read_audio(write_audio(tmp_path / f"x.{suffix}", torch.from_numpy(SOUND), rate))[1] == rate
        return
    with pytest.raises(SpecgenError, match=f"x.{suffix}: cannot be written at"):
        write_audio(tmp_path / f"x.{suffix}", torch.from_numpy(SOUND), rate)
    assert not list(tmp_path.iterdir())


def test_resampling_never_answers_with_what_is_no_number():
    with pytest.raises(SpecgenError, match="not finite"):
        resample(torch.from_numpy(SOUND) * 1e38 * 8, 16000, 44100)


# ---- folders of them

def test_one_odd_file_does_not_end_or_drag_a_folder(tmp_path):
    for k, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        for i in range(2):
            put(tmp_path / name / f"{i}.wav", encoded("WAV", sound=SOUND[1000 * k + 500 * i :]))
    put(tmp_path / "a" / "slow.wav", HEADERS["100 Hz"])
    put(tmp_path / "a" / "gsm.wav", encoded("WAV", "GSM610", rate=8000))
    put(tmp_path / "a" / "adpcm.au", encoded("AU", "G721_32", rate=8000))
    put(tmp_path / "b" / "huge.wav", HEADERS["one sample of 1e300"])
    put(tmp_path / "b" / "opposite.wav", HEADERS["stereo that cancels"])
    put(tmp_path / "b" / "guid.wav", HEADERS["a bit of the GUID flipped"])
    if os.name != "nt":
        (tmp_path / "b" / "loop.wav").symlink_to("loop.wav")
        (tmp_path / "b" / "away").symlink_to("away")
        os.mkfifo(tmp_path / "b" / "pipe.wav")
        put(tmp_path / "b" / os.fsdecode(b"caf\xe9.wav"), HEADERS["plain"])
    dataset = load_recordings(tmp_path)
    assert len(dataset) == 6 + (os.name != "nt") and dataset.common_sample_rate() == 16000 and len(dataset.waveforms(16000)) == len(dataset)
    reasons = {skipped.path.name: skipped.reason for skipped in dataset.skipped}
    assert reasons.keys() == {"slow.wav", "huge.wav", "opposite.wav", "guid.wav"} | ({"loop.wav", "pipe.wav"} if os.name != "nt" else set())
    assert "100 Hz" in reasons["slow.wav"] and "cancel" in reasons["opposite.wav"]
