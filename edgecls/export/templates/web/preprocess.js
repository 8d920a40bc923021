// The network's input of a photo, as Python's `Preprocess` makes it: resize the short side, round to 8 bits, cut the center.
// A tap is the old pixels that a new pixel is made of, and their weights. The arithmetic is that of OpenCV and TensorFlow
// without anti-aliasing (positions in float32, for bicubic in steps of 1/1024), and of Pillow with it (weights in steps of
// 2^-22, rounded to 8 bits after each pass).

// RGB bytes [size, size, 3] of an ImageData: RGBA, opaque. `settings` is "preprocess" of model.json.
export function pixels(photo, settings) {
  const { size } = settings;
  const scale = settings.resize_short / Math.min(photo.width, photo.height);
  const columns = taps(photo.width, even(photo.width * scale), settings);
  const rows = taps(photo.height, even(photo.height * scale), settings);
  const rounded = averages(settings) ? (value) => Math.floor(value + 0.5) : even;
  const byte = (value) => Math.min(255, Math.max(0, rounded(value)));
  const between = averages(settings) ? byte : (value) => value;
  const narrow = new Map();  // rows of the photo, resized to `size` pixels
  const result = new Uint8Array(size * size * 3);
  rows.forEach(({ first, weights }, y) => {
    for (const key of narrow.keys()) if (key < first) narrow.delete(key);
    const lines = weights.map((_, k) => {
      if (!narrow.has(first + k)) narrow.set(first + k, resized(photo, first + k, columns, between));
      return narrow.get(first + k);
    });
    for (let i = 0; i < size * 3; i++) {
      let sum = 0;
      for (let k = 0; k < lines.length; k++) sum += lines[k][i] * weights[k];
      result[y * size * 3 + i] = byte(sum);
    }
  });
  return result;
}

const averages = ({ interpolation, antialias }) => antialias && interpolation !== "area";

// Rounds halves to even, as Python, OpenCV and TensorFlow do.
function even(value) {
  const low = Math.floor(value);
  const part = value - low;
  return part === 0.5 ? low + (low & 1) : low + (part > 0.5);
}

function resized(photo, y, columns, between) {
  const line = new Float64Array(columns.length * 3);
  const start = y * photo.width * 4;
  columns.forEach(({ first, weights }, x) => {
    for (let channel = 0; channel < 3; channel++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += photo.data[start + (first + k) * 4 + channel] * weights[k];
      line[x * 3 + channel] = between(sum);
    }
  });
  return line;
}

// For each kept pixel of a side that shrinks or grows from `before` to `after` pixels.
function taps(before, after, settings) {
  const step = before / after;
  const offset = Math.floor((after - settings.size) / 2);
  return Array.from({ length: settings.size }, (_, index) => {
    const { first, weights } = tap(before, step, index + offset, settings);
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const share = (weight) => weight / sum;
    const stepped = (weight) => even(share(weight) * 4194304) / 4194304;
    return { first, weights: weights.map(averages(settings) ? stepped : share) };
  });
}

function tap(before, step, cell, settings) {
  const range = (first, end, weight) => ({
    first, weights: Array.from({ length: end - first }, (_, k) => weight(first + k)),
  });
  if (settings.interpolation === "area") {
    const [low, high] = [cell * step, (cell + 1) * step];
    const overlap = (old) => Math.min(old + 1, high) - Math.max(old, low);
    return range(Math.floor(low), Math.min(before, Math.ceil(high)), overlap);
  }
  const { kernel, reach } = KERNELS[settings.interpolation];
  if (settings.antialias) {
    const wide = Math.max(step, 1);  // where a photo gets smaller, the kernel gets wider
    const center = (cell + 0.5) * step;
    const first = Math.max(0, Math.trunc(center - reach * wide + 0.5));
    const end = Math.min(before, Math.trunc(center + reach * wide + 0.5));
    return range(first, end, (old) => kernel(Math.abs(old + 0.5 - center) / wide));
  }
  const at = Math.fround((cell + 0.5) * step - 0.5);  // half-pixel centers
  const low = Math.floor(at);
  const part = settings.interpolation === "bilinear" ? at - low : even((at - low) * 1024) / 1024;
  const [first, end] = [Math.max(0, low - reach + 1), Math.min(before, low + reach + 1)];
  return range(first, end, (old) => kernel(Math.abs(old - low - part)));
}

const KERNELS = {
  bilinear: { reach: 1, kernel: (t) => Math.max(0, 1 - t) },
  bicubic: {  // Keys' kernel with a = -0.5
    reach: 2,
    kernel: (t) => (t < 1 ? (1.5 * t - 2.5) * t * t + 1 : t < 2 ? ((2.5 - 0.5 * t) * t - 4) * t + 2 : 0),
  },
};
