// What the page knows of the channels: what the WebSocket has told, and what follows
// from it over time.

import {History} from './plot.js';

// counters are what a status counts up; waiting goes up and down.
const zero = {received: 0, sent: 0};

class Channel {
  constructor(status) {
    this.status = status;
    this.received = new History();
    this.sent = new History();
    this.waiting = new History();
    this.base = null; // the counters at the last tick; null: there was none since the connection was made
  }

  get source() { return this.status.childStatuses[0]; }
  get destinations() { return this.status.childStatuses.slice(1); }

  // oldest is when the message that has waited longest came in.
  get oldest() {
    return this.destinations.map((d) => d.oldestQueued).filter(Boolean).sort()[0];
  }

  tick(elapsed) {
    const {received, sent, queued} = this.status.statistics;
    const base = this.base ?? zero;
    if (this.base && elapsed > 0) {
      this.received.push(Math.max(0, received - base.received) / elapsed);
      this.sent.push(Math.max(0, sent - base.sent) / elapsed);
      this.waiting.push(queued);
    }
    this.base = {received, sent};
  }
}

export class Model {
  channels = new Map(); // by ID, in the engine's order
  healthy = true;
  complete = false; // whether there has been a first picture
  at = 0;           // when the last news came, by this machine's clock
  #offset = 0;      // of the engine's clock from this machine's, in ms
  #ticked = 0;

  // now is the engine's time.
  now() { return Date.now() + this.#offset; }

  // take takes over a frame of /ws/dashboardstatus.
  take(frame) {
    this.healthy = frame.healthy;
    this.at = Date.now();
    this.#offset = new Date(frame.time) - this.at;
    const changed = [];
    for (const status of frame.data) {
      const known = this.channels.get(status.channelId);
      if (known) known.status = status;
      else this.channels.set(status.channelId, new Channel(status));
      changed.push(status.channelId);
    }
    if (frame.channels) this.#order = frame.channels;
    const there = this.#order.filter((id) => this.channels.has(id));
    if (frame.channels || there.length !== this.channels.size || !this.complete) {
      this.channels = new Map(there.map((id) => [id, this.channels.get(id)]));
    }
    this.complete ||= this.channels.size === this.#order.length;
    return changed;
  }
  #order = [];

  // tick ends a second: what was counted in it becomes a rate.
  tick() {
    const now = performance.now(), elapsed = (now - this.#ticked) / 1000;
    this.#ticked = now;
    for (const channel of this.channels.values()) channel.tick(elapsed);
  }

  // pause forgets what was counted, where a connection was lost: what happened meanwhile
  // did not happen in one second.
  pause() {
    for (const channel of this.channels.values()) channel.base = null;
  }

  total(of) {
    let sum = 0;
    for (const channel of this.channels.values()) sum += of(channel);
    return sum;
  }
}
