// A WebSocket that comes back.

const first = 1000, most = 30_000; // ms between two attempts

// Socket keeps a connection to path until it is closed. It calls
//
//   opened(send)     connected: send what is wanted
//   received(frame)  for each message
//   lost(at)         the connection is gone; the next attempt is at that time
//   refused()        before each next attempt: whether there is still a session. It
//                    answers false where another attempt is of no use
export class Socket {
  #path; #handlers; #socket = null; #timer = 0; #failures = 0; #over = false;

  constructor(path, handlers) {
    this.#path = path;
    this.#handlers = handlers;
    this.#connect();
  }

  close() {
    this.#over = true;
    clearTimeout(this.#timer);
    this.#socket?.close();
  }

  send(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  // now tries at once.
  now() {
    if (this.#over || this.#socket) return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  #connect() {
    // Of the page's own origin, and as well protected.
    const socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${this.#path}`);
    this.#socket = socket;
    socket.addEventListener('open', () => this.#handlers.opened((frame) => this.send(frame)));
    socket.addEventListener('message', (event) => {
      this.#failures = 0; // it works, and is not just accepted
      this.#handlers.received(JSON.parse(event.data));
    });
    socket.addEventListener('close', () => this.#ended());
  }

  async #ended() {
    this.#socket = null;
    if (this.#over) return;
    // Twice as long each time, and not all browsers at once after a restart.
    const pause = Math.min(most, first * 2 ** this.#failures) * (0.75 + Math.random() / 2);
    this.#failures++;
    this.#handlers.lost(Date.now() + pause);
    this.#timer = setTimeout(async () => {
      if (!await this.#handlers.refused() || this.#over || this.#socket) return;
      this.#connect();
    }, pause);
  }
}
