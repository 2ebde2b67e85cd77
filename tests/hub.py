"""A stand-in for the Hub on this machine: repositories that are created, written to by commits, and read, as huggingface_hub asks for it.

`python tests/hub.py FOLDER` asks the Hub that HF_ENDPOINT names: it makes one small model of each kind, pushes it, fetches it, and prints what came back.
"""
import base64
import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Hub(BaseHTTPRequestHandler):
    "What it holds is `server.held`: the files of each repository, by their names."

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, content: bytes | dict | list, status: int = 200, **headers: str):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self):
        place, body, held = urlsplit(self.path).path, self.body(), self.server.held
        repository = place.removeprefix("/api/models/").rpartition("/")[0].rpartition("/")[0]
        if place == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
            held.setdefault(name, {})
            self.answer({"url": f"{self.server.url}/{name}"})
        elif place == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in place:
            files = json.loads(body)["files"]
            self.answer({"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]})
        else:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    held[repository][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": f"{self.server.url}/{repository}/commit/{self.revision(repository)}", "commitOid": self.revision(repository)})

    def revision(self, repository: str) -> str:
        return hashlib.sha1(b"".join(self.server.held[repository].values())).hexdigest()

    def do_GET(self):
        place, held = unquote(urlsplit(self.path).path).strip("/"), self.server.held
        if place.startswith("api/models/"):
            return self.answer_about(place.removeprefix("api/models/"))
        repository, _, rest = place.partition("/resolve/")
        content = held.get(repository, {}).get(rest.partition("/")[2])
        if content is None:
            return self.answer(b"", 404, X_Error_Code="EntryNotFound" if repository in held else "RepoNotFound")
        self.answer(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=self.revision(repository))

    def answer_about(self, place: str):
        "What is in a repository: as its description, or as a list of its files."
        tree, repository = "/tree/" in place, place.partition("/revision/")[0].partition("/tree/")[0]
        if not (files := self.server.held.get(repository)):
            return self.answer({}, 404)
        if tree:
            self.answer([dict(type="file", path=name, size=len(content), oid=hashlib.sha1(content).hexdigest()) for name, content in files.items()])
        else:
            self.answer({"id": repository, "sha": self.revision(repository), "siblings": [{"rfilename": name} for name in files]})

    do_HEAD = do_GET


def serve() -> ThreadingHTTPServer:
    "The stand-in, on a free port; its address is `url`. Whoever asks for it starts and stops it."
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.held, server.url = {}, f"http://127.0.0.1:{server.server_port}"
    return server


def round_trip(folder: Path):
    "A line of JSON for each kind of model."
    from fuzz import make_models

    from specgen.core import read_json

    for kind in make_models(folder):
        made, name = kind.from_pretrained(folder / kind.__name__), f"someone/{kind.__name__}"
        made.push_to_hub(name)
        back = kind.from_pretrained(name, cache_dir=folder / "cache")
        weights, again = made.state_dict(), back.state_dict()
        same = weights.keys() == again.keys() and all(weights[key].equal(again[key]) for key in weights)
        settings = json.loads(json.dumps(back._hub_mixin_config)) == read_json(folder / kind.__name__ / "config.json")
        print(json.dumps(dict(kind=kind.__name__, same=same, settings=settings, training=back.training)), flush=True)


if __name__ == "__main__":
    round_trip(Path(sys.argv[1]))
