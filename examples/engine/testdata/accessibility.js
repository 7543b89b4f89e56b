// What a person who sees little, uses no mouse, or holds a phone needs of a page: the
// rules that most often are broken, each as a list of what breaks it.
(() => {
  const found = [];
  const wrong = (rule, element, why = '') => found.push(`${rule}: ${why} ${element?.outerHTML?.slice(0, 160) ?? ''}`);
  const visible = (e) => e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true}) && e.getClientRects().length > 0;
  const all = (selector) => [...document.querySelectorAll(selector)].filter(visible);

  // The document (WCAG 2.4.2, 3.1.1, 1.3.1).
  if (!document.title) wrong('title');
  if (!document.documentElement.lang) wrong('lang');
  if (document.querySelectorAll('main').length !== 1) wrong('main');
  if (all('h1').length !== 1) wrong('one h1', all('h1')[1]);
  let level = 0;
  for (const heading of all('h1, h2, h3, h4')) {
    const own = Number(heading.tagName[1]);
    if (own > level + 1) wrong('heading order', heading);
    level = own;
  }
  const ids = new Set();
  for (const e of document.querySelectorAll('[id]')) { if (ids.has(e.id)) wrong('unique id', e); ids.add(e.id); }
  for (const name of ['aria-labelledby', 'aria-describedby', 'for']) {
    for (const e of document.querySelectorAll(`[${name}]`)) {
      for (const id of e.getAttribute(name).split(' ')) if (!document.getElementById(id)) wrong(name, e, id);
    }
  }

  // Names (4.1.2).
  for (const e of all('a, button, input, select, summary, pre[tabindex], [role=log]')) {
    const name = e.getAttribute('aria-label') || [...e.labels ?? []].map((l) => l.textContent).join('') || (e.matches('input, select') ? '' : e.textContent);
    if (!name.trim()) wrong('name', e);
    if (e.matches('a, button') && !name.includes(e.textContent.trim())) wrong('name has what is seen', e); // 2.5.3
  }
  for (const e of document.querySelectorAll('th')) if (!e.textContent) wrong('heading of a column', e);
  for (const e of document.querySelectorAll('li')) if (!e.parentElement.matches('ul, ol') || e.parentElement.role) wrong('item of a list', e);
  for (const e of all('table')) if (!e.getAttribute('aria-label')) wrong('table name', e);
  for (const e of document.querySelectorAll('svg')) if (e.getAttribute('aria-hidden') !== 'true' && !e.getAttribute('aria-label')) wrong('drawing', e);

  // Size of what is touched (2.5.8), and nothing that has to be scrolled sideways (1.4.10).
  for (const e of all('button, input, select, nav a')) {
    const box = (e.labels?.[0] ?? e).getBoundingClientRect(), own = e.getBoundingClientRect();
    if (Math.max(box.width, own.width) < 24 || Math.max(box.height, own.height) < 24) wrong('target size', e, `${own.width}x${own.height}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) {
    const out = all('body *').filter((e) => e.getBoundingClientRect().right > innerWidth + 1);
    wrong('reflow', out.at(-1), `${document.documentElement.scrollWidth} > ${innerWidth}`);
  }

  // Contrast (1.4.3 text, 1.4.11 borders of fields).
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const ground = (e) => {
    const layers = [];
    for (let at = e; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), rgba(matchMedia('(prefers-color-scheme: dark)').matches ? '#121212' : '#fff'));
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode());) {
    const e = node.parentElement;
    if (!node.data.trim() || !visible(e) || e.closest('noscript, .hidden, thead, :disabled')) continue;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const needed = size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700 ? 3 : 4.5;
    const has = contrast(over(rgba(style.color), ground(e)), ground(e));
    if (has < needed) wrong('contrast', e, `${has.toFixed(2)} < ${needed}`);
  }
  for (const e of all('input:not([type=radio], [type=checkbox]), select')) {
    const has = contrast(rgba(getComputedStyle(e).borderTopColor), ground(e.parentElement));
    if (has < 3) wrong('border contrast', e, has.toFixed(2));
  }
  return found;
})()
