// The page: who is signed in, which view is shown, and the connection that feeds it.

import {get, post, onEnded} from './api.js';
import {h, text} from './dom.js';
import {clock} from './format.js';
import {Model} from './model.js';
import {Socket} from './socket.js';
import {signIn} from './signin.js';
import {overview} from './channels.js';
import {oneChannel} from './channel.js';
import {certificates} from './certificates.js';
import {deadLetters} from './deadletters.js';
import {log} from './log.js';

const ranks = ['viewer', 'operator', 'admin'];
const views = [
  {path: '#/', name: 'Channels', least: 'viewer', make: overview},
  {path: '#/deadletters', name: 'Dead letters', least: 'operator', make: deadLetters},
  {path: '#/certificates', name: 'Certificates', least: 'viewer', make: certificates},
  {path: '#/log', name: 'Log', least: 'admin', make: log},
];

const top = document.getElementById('top'), main = document.getElementById('main');
const notice = document.getElementById('notice'), said = document.getElementById('said');

// app is what a view gets.
const app = {
  user: null,
  model: new Model(),
  may: (role) => ranks.indexOf(app.user.role) >= ranks.indexOf(role),
  // say tells what came of something, to eyes and to screen readers.
  say(words, kind = 'good') {
    said.dataset.kind = kind;
    text(said, '');
    requestAnimationFrame(() => text(said, words)); // the same words twice are said twice
    clearTimeout(app.saying);
    app.saying = setTimeout(() => text(said, ''), 8000);
  },
  failed: (error) => app.say(error.message, 'bad'),
  command,
};

let socket = null, view = null, status = null, clockTimer = 0;

// command has the engine do something to a channel.
async function command(id, verb, done) {
  try {
    await post(`/api/channels/${encodeURIComponent(id)}/_${verb}`);
    app.say(done);
    return true;
  } catch (error) {
    app.failed(error);
    return false;
  }
}

function connect() {
  socket = new Socket('/ws/dashboardstatus', {
    opened: (send) => {
      app.model.pause();
      send({type: 'subscribe', statuses: true});
    },
    received(frame) {
      if (frame.type !== 'statuses') return;
      live();
      const changed = app.model.take(frame);
      health();
      view?.changed?.(changed);
    },
    lost(next) {
      app.model.pause();
      lost(next);
    },
    refused: stillSignedIn,
  });
  clockTimer = setInterval(() => {
    if (status.dataset.kind === 'good') app.model.tick();
    view?.tick?.();
    keepAlive();
  }, 1000);
}

// stillSignedIn asks for the session, in quiet: a WebSocket does not say why it was
// refused. Without an answer another attempt is worth while.
async function stillSignedIn() {
  try {
    await get('/api/users/current', {quiet: true});
    return true;
  } catch (error) {
    if (error.status !== 401) return true;
    over();
    return false;
  }
}

function live() {
  if (status.dataset.kind === 'good') return;
  status.dataset.kind = 'good';
  text(status, 'Live');
  notice.replaceChildren();
}

function lost(next) {
  if (status.dataset.kind !== 'bad') {
    status.dataset.kind = 'bad';
    text(status, 'Not live');
  }
  const of = app.model.at ? ` What you see is from ${clock(new Date(app.model.at))}.` : '';
  const pause = Math.max(1, Math.round((next - Date.now()) / 1000));
  const words = h('span', {}, `The connection to the engine is lost.${of} `);
  const again = h('button', {type: 'button', class: 'quiet small', click: () => socket.now()}, 'Try now');
  if (notice.dataset.kind === 'bad' && notice.firstChild) { // it has been said
    text(notice.querySelector('.pause'), `Next attempt in ${pause} s.`);
    return;
  }
  notice.dataset.kind = 'bad';
  notice.replaceChildren(h('p', {}, words, h('span', {class: 'pause', 'aria-hidden': 'true'}, `Next attempt in ${pause} s.`)), again);
}

function health() {
  if (app.model.healthy) {
    if (notice.dataset.kind === 'store') notice.replaceChildren();
    return;
  }
  if (notice.dataset.kind === 'store' && notice.firstChild) return;
  notice.dataset.kind = 'store';
  notice.replaceChildren(h('p', {}, 'The store does not take messages: senders get no acknowledgement. The log says why.'));
}

// A session ends when nobody has used it for half an hour. Somebody who moves, types or
// scrolls here uses it; a page that is only open does not.
let used = 0, told = Date.now();
for (const kind of ['pointerdown', 'pointermove', 'keydown', 'wheel', 'touchstart']) {
  addEventListener(kind, () => { used = Date.now(); }, {passive: true});
}
function keepAlive() {
  if (used > told && Date.now() - told > 60_000) {
    told = Date.now();
    socket.send({type: 'ping'});
  }
}

function disconnect() {
  socket?.close();
  socket = null;
  clearInterval(clockTimer);
  view?.close?.();
  view = null;
}

// over shows that the session has ended.
function over() {
  if (!app.user) return;
  disconnect();
  app.user = null;
  begin('Your session has ended. Sign in again.');
}

async function leave() {
  disconnect();
  try {
    await post('/api/users/_logout', undefined, {quiet: true});
  } catch (error) {
    if (error.status !== 401) app.failed(error);
  }
  app.user = null;
  begin('You have signed out.');
}

function begin(words) {
  app.model = new Model();
  notice.replaceChildren();
  top.replaceChildren(brand());
  document.title = 'Sign in – carewire';
  main.replaceChildren(signIn(words, entered));
  main.querySelector('input').focus();
}

function brand() {
  return h('a', {class: 'brand', href: '#/'}, 'carewire');
}

function entered(user) {
  app.user = user;
  status = h('span', {class: 'live', 'data-kind': 'busy', role: 'status'}, 'Connecting');
  top.replaceChildren(brand(),
    h('nav', {'aria-label': 'Views'}, views.filter((v) => app.may(v.least)).map((v) => h('a', {href: v.path}, v.name))),
    h('div', {class: 'who'}, status, h('span', {class: 'user', title: `Role: ${user.role}`}, user.username),
      h('button', {type: 'button', class: 'quiet small', click: leave}, 'Sign out')));
  connect();
  show();
}

// show shows the view that the address names.
function show() {
  if (!app.user) return;
  view?.close?.();
  const address = location.hash || '#/';
  const channel = /^#\/channels\/([^/]+)$/.exec(address);
  const found = views.find((v) => v.path === address && app.may(v.least)) ?? views[0];
  view = channel ? oneChannel(app, decodeURIComponent(channel[1])) : found.make(app);
  for (const link of top.querySelectorAll('nav a')) {
    if (link.getAttribute('href') === (channel ? '#/' : found.path)) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${view.title} – carewire`;
  main.replaceChildren(view.element);
  view.tick?.();
  scrollTo(0, 0);
}

addEventListener('hashchange', () => {
  show();
  main.querySelector('h1')?.focus(); // where a screen reader goes on
});
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault(); // the address says which view is shown
  main.focus();
});
onEnded(over);

get('/api/users/current', {quiet: true}).then((user) => (user.mustChangePassword ? begin('Sign in to choose a password of your own.') : entered(user)), () => begin(''));
