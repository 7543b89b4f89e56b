// Small plots of the last two minutes, drawn as SVG so that they have the page's colours.

import {svg} from './dom.js';

export const seconds = 120;
const width = 120, height = 32;

// History is one number a second, the latest last.
export class History {
  #values = [];

  push(value) {
    this.#values.push(value);
    if (this.#values.length > seconds) this.#values.shift();
  }

  // mean is of the latest ten.
  mean() {
    const latest = this.#values.slice(-10);
    return latest.length ? latest.reduce((a, b) => a + b, 0) / latest.length : 0;
  }

  most() { return Math.max(0, ...this.#values); }
  get values() { return this.#values; }
}

// plot returns a drawing and the function that draws a History into it. Its number is
// said in words beside it, so that it is nothing for a screen reader.
export function plot(className) {
  const area = svg('path', {class: 'area'}), line = svg('polyline', {class: 'line'});
  const element = svg('svg', {class: `plot ${className ?? ''}`, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true', focusable: 'false'}, area, line);
  let drawn = '';
  return {element, draw(history) {
    // The mean of three seconds: what comes by the second is a comb otherwise.
    const values = history.values.map((v, i, all) => (v + (all[i - 1] ?? v) + (all[i + 1] ?? v)) / 3), top = Math.max(1, ...values) * 1.15;
    const step = width / (seconds - 1), start = width - (values.length - 1) * step;
    const points = values.map((v, i) => `${(start + i * step).toFixed(1)},${(height - 1.5 - v / top * (height - 3)).toFixed(1)}`).join(' ');
    if (points === drawn || values.length < 2) return;
    drawn = points;
    line.setAttribute('points', points);
    area.setAttribute('d', `M${start.toFixed(1)},${height} L${points.replaceAll(' ', ' L')} L${width},${height} Z`);
  }};
}
