// Certificates: whose, what for, until when.

import {get} from './api.js';
import {cell, h, row, table} from './dom.js';
import {commonName, date, left, moment} from './format.js';
import {pill} from './parts.js';

const purposes = {leaf: 'presents', chain: 'sends along', ca: 'trusts'};

// usedFor says of one TLS setting what a certificate is there for.
function usedFor(use, certificate, named) {
  const who = use.channelId ? `${named ? `${use.channelName}, ` : ''}${use.metaDataId === 0 ? 'source' : use.connectorName}` : 'This page and the API';
  const words = `${who} ${purposes[certificate.use] ?? certificate.use} it${use.setting === 'responseTls' ? ' (answers)' : ''}`;
  return named && use.channelId ? h('a', {href: `#/channels/${encodeURIComponent(use.channelId)}`}, words) : words;
}

// certificateTable shows each certificate once, what ends first on top. named is whether
// the channels are to be named.
export function certificateTable(uses, now, named) {
  const all = new Map();
  for (const use of uses) {
    for (const c of use.certificates) {
      const key = [c.subject, c.issuer, c.notBefore, c.notAfter].join('\n');
      if (!all.has(key)) all.set(key, {...c, for: []});
      all.get(key).for.push([use, c]);
    }
  }
  const {element, body} = table('Certificates', [['Certificate', 'name'], ['Used for', 'wide'], ['In use since', 'num'], ['Ends', 'num'], ['Left', 'state', true]], 'certificates');
  const sorted = [...all.values()].sort((a, b) => (a.notAfter < b.notAfter ? -1 : 1));
  body.append(...sorted.map((c) => row({'data-subject': c.subject, 'data-ends': c.notAfter},
    cell('Certificate', 'name', h('strong', {title: c.subject}, commonName(c.subject)),
      h('span', {class: 'note'}, c.issuer === c.subject ? 'signed by itself' : `from ${commonName(c.issuer)}`)),
    cell('Used for', 'wide', h('ul', {class: 'plain'}, c.for.map(([use, of]) => h('li', {}, usedFor(use, of, named))))),
    cell('In use since', 'num', c.for[0][0].loadedDate ? moment(c.for[0][0].loadedDate) : '–'),
    cell('Ends', 'num', h('time', {datetime: c.notAfter}, date(c.notAfter))),
    cell('', 'state', pill(...left(c.notBefore, c.notAfter, now))))));
  const wrong = uses.filter((use) => use.error).map((use) => h('li', {},
    `${use.channelId ? `${use.channelName}, ${use.connectorName}` : 'The API'}: ${use.error}. ${use.certificates.length ? 'The set before is still used.' : ''}`));
  return h('div', {}, wrong.length ? h('ul', {class: 'wrong plain', role: 'alert'}, wrong) : null,
    sorted.length ? element : h('p', {class: 'empty'}, 'There are no certificates.'));
}

export function certificates(app) {
  const place = h('div', {'aria-busy': 'true'}, h('p', {class: 'empty'}, 'Looking …'));
  let before = '';
  const look = async () => {
    try {
      const uses = await get('/api/certificates');
      const now = JSON.stringify(uses);
      if (now === before) return;
      const again = before !== '';
      before = now;
      place.replaceChildren(certificateTable(uses, app.model.now(), true));
      place.setAttribute('aria-busy', 'false');
      if (again) app.say('Certificates have changed.');
    } catch (error) {
      app.failed(error);
    }
  };
  const looking = setInterval(look, 5000);
  look();
  return {title: 'Certificates', close: () => clearInterval(looking), element: h('div', {},
    h('h1', {tabindex: '-1'}, 'Certificates'),
    h('p', {class: 'muted'}, 'Files that are replaced are taken up without a restart. What ends first is on top.'), place)};
}
