"""The notebooks as a user sees them: JupyterLab in a headless Chromium, Run All, and what stands there afterwards.

`python tests/ui.py` opens every notebook, without any corpus; words pick those whose names hold one of them, `--quick` a few small ones, `--data` keeps
SPECGEN_DATA and the cache, `--shots FOLDER` keeps a picture of each. A line for each says the seconds, the cells that were left out, errors, pictures, players
that play, and kept outputs that were lost. The notebooks are copied first, and trusted, as `make lab` does. Chromium is driven by its DevTools protocol.
"""
import argparse
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import websocket

ROOT = Path(__file__).parents[1]
QUICK = ("00_core", "01_audio", "08a_notebook", "24_spectral_vocoder")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SETTINGS = {  # all cells are drawn, and no news asked for
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
BOOK = "[...(window.jupyterapp?.shell?.widgets('main') ?? [])].find(w => w.context?.path.endsWith('.ipynb'))"
READY = f"(b => b?.content?.widgets?.length > 0 && b.sessionContext.session?.kernel?.status == 'idle')({BOOK})"
RUN = f"""window.ran = ''; jupyterapp.shell.activateById({BOOK}.id); {BOOK}.content.activate();
jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.ran = 'yes', e => window.ran = String(e)); 0"""
CELLS = f"""{BOOK}.content.widgets.filter(c => c.model.type == 'code')
    .map(c => [c.model.sharedModel.source, c.model.executionCount, c.model.outputs.toJSON()])"""
PLAYERS = """Promise.all([...document.querySelectorAll('.jp-OutputArea audio')].map(a => new Promise(done => {
    a.preload = 'metadata';
    a.onloadedmetadata = () => done(1);
    a.onerror = () => done(0);
    a.duration > 0 ? done(1) : a.load();
    setTimeout(() => done(0), 10000);
}))).then(all => [all.length, all.reduce((a, b) => a + b, 0)])"""
LOOK = f"""{BOOK}.content.widgets.find(c => c.model.type == 'code' && c.model.outputs.toJSON().some(o => String(o.text ?? '').startsWith('Left out: ')))
    ?.node.scrollIntoView(); new Promise(done => setTimeout(done, 500))"""
PANEL = "document.querySelector('img[alt^=\"Spectrogram and reassigned\"]')"  # the picture of the explorer's first panel
IN_PANEL = f"{PANEL}.closest('.widget-vbox')"
SLIDERS = ("n_fft", "hop_length", "n_mels")  # of that panel, from the left
PICTURES = "[...document.querySelectorAll('.jp-OutputArea img')].map(i => [i.naturalWidth > 0, i.alt])"


class Page:
    "A tab of Chromium."

    def __init__(self, port: int):
        ask = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(ask) as answer:
            url = json.load(answer)["webSocketDebuggerUrl"]
        self.socket, self.count = websocket.create_connection(url, suppress_origin=True, timeout=120), 0
        self.call("Page.enable")

    def call(self, method: str, **params) -> dict:
        "One command of the DevTools protocol, and its answer. Raises RuntimeError."
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.count:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def value(self, code: str):
        "What JavaScript says, when its promises are kept."
        result = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{result['exceptionDetails']['exception'].get('description', '?')[:300]} in {code[:80]}")
        return result["result"].get("value")

    def wait(self, code: str, seconds: float) -> bool:
        "Whether JavaScript says yes in time."
        end = time.monotonic() + seconds
        while not (said := self.value(code)) and time.monotonic() < end:
            time.sleep(0.5)
        return bool(said)

    def press(self, element: str, key: str, times: int = 1) -> None:
        "Keys on an element, given as JavaScript, that takes the focus."
        self.value(f"{element}.focus()")
        for kind in ("keyDown", "keyUp") * times:
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def shot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def started(command: list, **how):
    "A program that is ended afterwards."
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


def patiently(ask, seconds: float = 300):
    "The answer of a function, asked again while it raises OSError."
    end = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.3)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def lab(names: list[str], data: bool = False):
    "JupyterLab on trusted copies of notebooks, and a tab of Chromium: (address, folder of the copies, page)."
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        folder = place / "nbs"
        folder.mkdir()
        copies = [shutil.copy(ROOT / "nbs" / f"{name}.ipynb", folder) for name in names]
        shutil.copytree(ROOT / "nbs" / "images", folder / "images")
        for name, settings in SETTINGS.items():
            path = place / "settings" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings))
        env = {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_DATA_DIR": str(place / "jupyter"), "JUPYTER_CONFIG_DIR": str(place / "config"),
               "JUPYTERLAB_SETTINGS_DIR": str(place / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(place / "workspaces")}
        env.pop("MPLBACKEND", None)  # a kernel draws into its notebook
        if not data:
            env.pop("SPECGEN_DATA", None)
            env["SPECGEN_CACHE"] = str(place / "cache")
        subprocess.run([sys.executable, "-m", "jupyter", "trust", *copies], env=env, check=True, capture_output=True)
        port = free_port()
        address = f"http://127.0.0.1:{port}/lab"
        stack.enter_context(started([sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--IdentityProvider.token=", "--allow-root",
                                     "--ServerApp.disable_check_xsrf=True", f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"], env=env))
        stack.enter_context(started([CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
                                     "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",  # a microphone that beeps
                                     "--autoplay-policy=no-user-gesture-required",
                                     f"--user-data-dir={place / 'chromium'}", "--window-size=1300,1000", "about:blank"]))
        debugging = patiently(lambda: int((place / "chromium" / "DevToolsActivePort").read_text().split()[0]))
        patiently(lambda: urllib.request.urlopen(address, timeout=10).close())
        yield address, folder, patiently(lambda: Page(debugging))


def counted(cells: list) -> dict[str, int]:
    "What stands under a notebook's cells."
    outputs = [o for _, _, own in cells for o in own]
    rich = [str(o.get("data", {})) for o in outputs]
    return {"errors": sum(o["output_type"] == "error" for o in outputs), "pictures": sum("image/png" in r for r in rich),
            "players": sum(r.count("<audio") for r in rich)}


def explore(page: Page, name: str, shots: Path | None = None) -> list[str]:
    """The explorer's first panel, steered by keys: what is wrong with it.

    A slider is moved, and another picture has to come; then the FFT size and hop of the exact inverse, and five players have to play; then it records."""
    if not page.wait(f"{PANEL}?.naturalWidth > 0", 60):
        return ["no panel with a picture"]

    def keep(word: str) -> None:
        if shots:
            page.value(f"{IN_PANEL}.scrollIntoView(); new Promise(done => setTimeout(done, 500))")
            page.shot(shots / f"{name}_{word}.png")

    keep("before")
    before, start, wrong = page.value(f"{PANEL}.src"), time.monotonic(), []
    handles = {slider: f"{IN_PANEL}.querySelectorAll('.noUi-handle')[{k}]" for k, slider in enumerate(SLIDERS)}
    page.press(handles["n_fft"], "ArrowLeft")
    moved = page.wait(f"{PANEL}?.src != {json.dumps(before)} && {PANEL}?.naturalWidth > 0", 60)
    print(f"{name}: another picture {time.monotonic() - start:.1f} s after a key on a slider" if moved else "", flush=True)
    wrong += [] if moved else ["no other picture after a slider was moved"]
    page.press(handles["hop_length"], "ArrowLeft", 3)  # first: a hop beyond the frame is refused
    page.press(handles["n_fft"], "ArrowLeft", 2)
    wrong += [] if page.wait(f"{PANEL}?.alt.includes('FFT 80, hop 20')", 60) else ["keys do not reach the sliders"]
    page.value(f"[...{IN_PANEL}.querySelectorAll('button')].find(b => b.textContent.includes('back into sound')).click()")
    players = PLAYERS.replace("document", IN_PANEL).replace(".jp-OutputArea ", "")
    heard = page.wait(f"{IN_PANEL}.querySelectorAll('audio').length == 5", 120) and page.value(players)
    keep("after")
    page.value(f"[...{IN_PANEL}.querySelectorAll('button')].find(b => b.textContent.startsWith('record ')).click()")
    wrong += [] if page.wait(f"{PANEL}?.alt.includes('recording.wav')", 60) else ["no picture of what was recorded"]
    keep("recorded")
    return wrong if heard == [5, 5] else [*wrong, f"players of the inverses: {heard}"]


SCENARIOS = {"34_explorer": explore}  # what follows Run All


def run_notebook(name: str, address: str, folder: Path, page: Page, shots: Path | None = None, timeout: float = 900) -> dict:
    "Open a notebook, press Run All, wait, and say what stands there."
    page.call("Page.navigate", url=f"{address}/tree/{name}.ipynb?reset")
    if not page.wait(READY, 300):
        raise RuntimeError(f"{name}: JupyterLab did not open it in five minutes")
    before, kept = page.value(CELLS), page.value(PLAYERS)
    start = time.monotonic()
    page.value(RUN)
    finished = page.wait("window.ran", timeout)
    seconds, after = time.monotonic() - start, page.value(CELLS)
    told, was, now = [], counted(before), counted(after)
    for source, count, outputs in after:
        told += [f"not run: {source[:60]!r}"] if source.strip() and count is None else []
        told += [f"{o['ename']}: {o['evalue'][:150]} in {source[:60]!r}" for o in outputs if o["output_type"] == "error"]
    told += SCENARIOS[name](page, name, shots) if finished and name in SCENARIOS else []
    page.value(f"{BOOK}.context.save().then(() => 0)")
    saved = [cell["outputs"] for cell in json.loads((folder / f"{name}.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]
    lost = sum(bool(old[2]) and not new for old, new in zip(before, saved, strict=True))
    left_out = [line for *_, outputs in after for o in outputs for line in "".join(o.get("text", "")).splitlines() if line.startswith("Left out: ")]
    players, pictures = page.value(PLAYERS), page.value(PICTURES)
    if shots:  # of the first cell that was left out, if there is one
        page.value(LOOK)
        page.shot(shots / f"{name}.png")
    with urllib.request.urlopen(address.replace("/lab", "/api/sessions")) as answer:
        sessions = [session["id"] for session in json.load(answer)]
    for session in sessions:
        urllib.request.urlopen(urllib.request.Request(address.replace("/lab", f"/api/sessions/{session}"), method="DELETE")).close()
    return {"name": name, "seconds": seconds, "finished": finished, "told": told, "left out": left_out, "lost": lost, **now,
            "drawn": sum(drawn for drawn, _ in pictures), "playing": players[1], "kept playing": kept[1], **{f"{kind} kept": n for kind, n in was.items()}}


def problems(found: dict) -> list[str]:
    "What is wrong with what `run_notebook` found."
    wrong = [] if found["finished"] else ["not finished"]
    wrong += [f"{found['lost']} kept outputs lost"] * bool(found["lost"]) + found["told"]
    wrong += [f"{found['kept playing']} of {found['players kept']} kept players play"] * (found["kept playing"] < found["players kept"])
    wrong += [f"{found['playing']} of {found['players']} players play"] * (found["playing"] < found["players"])
    for kind in ("players", "pictures"):
        wrong += [f"{found[kind]} {kind}, {found[f'{kind} kept']} were kept"] * (found[kind] < found[f"{kind} kept"])
    return wrong + [f"{found['drawn']} of {found['pictures']} pictures are drawn"] * (found["drawn"] < found["pictures"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", action="store_true")
    parser.add_argument("--shots", type=Path)
    parser.add_argument("--timeout", type=float, default=900, help="seconds for a notebook")
    args = parser.parse_args()
    names = [p.stem for p in sorted((ROOT / "nbs").glob("*.ipynb"))]
    names = [name for name in names if (name in QUICK if args.quick else not args.words or any(word in name for word in args.words))]
    if not CHROMIUM:
        sys.exit("no Chromium here: install the package chromium")
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # JupyterLab and Chromium end with us
    bad = 0
    with lab(names, args.data) as (address, folder, page):
        for name in names:
            found = run_notebook(name, address, folder, page, args.shots, args.timeout)
            wrong = problems(found)
            bad += bool(wrong)
            print(f"{name:24s}{found['seconds']:5.0f} s  left out {len(found['left out']):2d}  errors {found['errors']}  pictures {found['pictures']:2d}"
                  f"  players {found['playing']:2d}  {'; '.join(wrong) or 'as it should be'}", flush=True)
    print(f"{len(names) - bad} of {len(names)} notebooks as they should be")
    sys.exit(bool(bad) or not names)


if __name__ == "__main__":
    main()
