// What several views show in the same way.

import {h, confirm} from './dom.js';
import {state} from './format.js';

export function pill(words, kind) { return h('span', {class: 'pill', 'data-kind': kind}, words); }

export function setPill(element, words, kind) {
  if (element.textContent !== words) element.textContent = words;
  element.dataset.kind = kind;
}

export const statePill = (word) => pill(...state(word));

// stop asks, because senders notice.
export function askStop(channel, verb = 'stop') {
  const waiting = channel.status.statistics.queued;
  const what = verb === 'pause' ?
    'Senders get no connection until it is resumed. What waits is still delivered.' :
    `Senders get no connection until it is started again. ${waiting > 0 ? 'What waits, waits on.' : 'Nothing waits in its queues.'}`;
  return confirm(`${verb === 'pause' ? 'Pause' : 'Stop'} ${channel.status.name}?`, what, verb === 'pause' ? 'Pause' : 'Stop');
}

// address says where a channel listens.
export function address({listenerInfo: l}) {
  if (!l.transportType) return '';
  return l.host ? `${l.transportType} ${l.host.includes(':') ? `[${l.host}]` : l.host}${l.port ? `:${l.port}` : ''}` : l.transportType;
}
