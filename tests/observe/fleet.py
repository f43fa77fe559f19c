"""A fleet at work for the dashboards: `smsfleet all` over a folder, sending through the provider simulator, with everything that
the panels ask about: refusals, repeats, slow and missing reports, answers of people, opened links, a webhook, and a process that
is killed in the middle and started again."""
import http.server
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.request

from prometheus import free_port

ROWS = 6_000
SECONDS_MAX = 150

BEHAVIOUR = """
smpp_listen = "127.0.0.1:{smpp}"
http_listen = "127.0.0.1:{http}"
[faults]
latency = [{{ share = 0.98, min_ms = 10, max_ms = 60 }}, {{ share = 0.02, min_ms = 200, max_ms = 900 }}]
rate = 500
burst_ms = 100
permanent_share = 0.02
transient_share = 0.01
queue_full_share = 0.002
[receipts]
delay = [{{ share = 0.8, min_ms = 300, max_ms = 2000 }}, {{ share = 0.2, min_ms = 3000, max_ms = 9000 }}]
undelivered_share = 0.03
expired_share = 0.01
never_share = 0.002
twice_share = 0.05
early_share = 0.02
inbound_share = 0.01
"""

CONFIG = """
data_dir = "{folder}/data"
default_region = "CN"
[batch]
min_recipients_per_lane = 1000
[serve]
listen = "127.0.0.1:{port}"
[webhooks]
allow = ["127.0.0.1"]
allow_http = true
allow_private = true
[accounts.main]
answer_timeout = 2.0
hours = {{ from = "00:00", to = "24:00", zone = "UTC" }}
[accounts.main.receipts]
wait = 15.0
[accounts.main.smpp]
port = {smpp}
system_id = "smsfleet"
password = "password"
binds = 2
window = 60
source_addr = "10690001"
reconnect_min = 0.1
"""


class Listener(http.server.BaseHTTPRequestHandler):
    """Takes webhooks; every tenth call is refused, and comes again."""

    calls = 0

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        Listener.calls += 1
        self.send_response(503 if Listener.calls % 10 == 0 else 204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Fleet:
    def __init__(self, binary, folder):
        self.binary, self.folder = str(pathlib.Path(binary).resolve()), pathlib.Path(folder)
        self.folder.mkdir()
        self.port = free_port()
        ports = {"smpp": free_port(), "http": free_port(), "port": self.port, "folder": self.folder}
        (self.folder / "behaviour.toml").write_text(BEHAVIOUR.format(**ports))
        (self.folder / "smsfleet.toml").write_text(CONFIG.format(**ports))
        with (self.folder / "list.csv").open("w") as rows:
            rows.write("number,name\n")
            for at in range(ROWS):
                # Some cannot be sent, and some come twice.
                number = "12" if at % 300 == 7 else f"+86139{at - at % 50 if at % 500 == 13 else at:08d}"
                rows.write(f"{number},Person {at}\n")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("SMSFLEET_")}
        self.started = []
        self.simulator = self.start("simulate-provider", "--behaviour", "behaviour.toml")
        self.all = None
        self.listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener)
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()

    def start(self, *arguments):
        with (self.folder / f"{arguments[0]}.log").open("a") as log:
            child = subprocess.Popen([self.binary, *arguments], cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        self.started.append(child)
        return child

    def serve(self):
        """Starts `smsfleet all` and waits until it serves."""
        self.all = self.start("all")
        for _ in range(300):
            try:
                return self.get("/metrics")
            except OSError:
                time.sleep(0.1)
            if self.all.poll() is not None:
                break
        raise SystemExit(f"smsfleet does not start:\n{(self.folder / 'all.log').read_text()[-2000:]}")

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def run(self, *arguments, codes=(0,)):
        command = [self.binary, *arguments]
        said = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120)
        if said.returncode not in codes:
            raise SystemExit(f"smsfleet {' '.join(arguments)} ended with {said.returncode}:\n{said.stdout[-1000:]}{said.stderr[-2000:]}")
        return said.stdout

    def json(self, *arguments, codes=(0,)):
        return json.loads(self.run(*arguments, "--json", codes=codes))

    def begin(self):
        """Creates the batch; it starts by itself."""
        listens = f"http://127.0.0.1:{self.listener.server_address[1]}/hook"
        self.run("webhook", "add", listens, "--event", "batch", "--event", "receipt", "--event", "inbound")
        base = f"http://127.0.0.1:{self.port}/"
        created = self.json(
            "batch", "create", "--recipients", "list.csv", "--template", "Hello {{name}}, see {{url}}", "--account", "main",
            "--url", "https://www.example/spring", "--link-base", base, "--auto-trigger",
        )
        return created["batch"]["batch_id"]

    def answers(self):
        """Answers of the account as the process counts them."""
        lines = self.get("/metrics").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("smsfleet_deliver_answers_total{"))

    def until(self, what, holds, seconds=SECONDS_MAX):
        limit = time.time() + seconds
        while time.time() < limit:
            if holds():
                return
            time.sleep(0.3)
        raise SystemExit(f"waited {seconds} s in vain until {what}; the end of the log:\n{(self.folder / 'all.log').read_text()[-2000:]}")

    def open_links(self, batch):
        """Opens some short links as people do, and guesses one."""
        shown = json.dumps(self.json("report", batch, codes=(0, 1)))
        codes = re.findall(rf"127\.0\.0\.1:{self.port}/(\w{{8}})", shown) * 20
        if not codes:
            raise SystemExit("no short link was found in the plan's samples")
        for code in [*codes, "AAAAAAAA"]:
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{code}", headers={"user-agent": "Mozilla/5.0 (Linux; Android 14)"})
            try:
                urllib.request.build_opener(Unfollowed).open(request, timeout=10).close()
            except urllib.error.HTTPError:
                pass

    def kill(self):
        self.all.send_signal(signal.SIGKILL)
        self.all.wait(10)

    def stop(self):
        for child in reversed(self.started):
            if child.poll() is None:
                child.terminate()
        for child in self.started:
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
        self.listener.shutdown()


class Unfollowed(urllib.request.HTTPRedirectHandler):
    """Leaves redirects alone: the page they lead to is nobody's."""

    def redirect_request(self, *_):
        return None


def work(fleet, scraped):
    """The whole run: a batch sent, killed in the middle, gone on with, settled. Its report. `scraped` says whether anybody reads."""
    fleet.serve()
    # Read before it counts, so that the first increase is seen.
    fleet.until("it was scraped", scraped)
    batch = fleet.begin()
    fleet.until("a third was answered", lambda: fleet.answers() > ROWS / 3)
    fleet.kill()
    # As long as somebody needs to notice; scrapes fail meanwhile.
    time.sleep(2)
    fleet.serve()
    # From now on the limit is told; before it was learned.
    fleet.run("account", "rate", "main", "450")
    fleet.until("it goes on", lambda: fleet.answers() > ROWS / 10)
    fleet.open_links(batch)
    fleet.until("it is settled", lambda: fleet.json("report", batch, codes=(0, 1))["settlement"]["settled"])
    # A last round of gauges, a scrape behind it, and rules behind that.
    time.sleep(10)
    return fleet.json("report", batch, codes=(0, 1))
