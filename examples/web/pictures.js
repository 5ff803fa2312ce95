// PNG files in and out, byte for byte, and what an exported network says about itself. The browser's own decoder and
// canvas are not asked: they may convert colours, multiply by alpha, or add noise against tracking.
"use strict";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}; // by PNG's colour type
const FORMAT = 3; // of the wic-layers chunk
const VERSIONS = {mark: 1, alpha: 1, exif: 1, dpi: 1}; // of its parts

const MOST_PIXELS = 1e8; // more would fill the memory of a page

/** An error whose message is for whoever uses the page. */
class Refusal extends Error {}

async function through(stream, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

/** Inflates data that must become so many bytes, and stops where it becomes more. */
async function inflate(data, length) {
  const out = new Uint8Array(length);
  const reader = new Blob(data).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  let filled = 0;
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    if (filled + read.value.length > length) {
      await reader.cancel();
      throw new RangeError("too long");
    }
    out.set(read.value, filled);
    filled += read.value.length;
  }
  if (filled < length) throw new RangeError("too short");
  return out;
}

/**
 * Reads an 8-bit PNG.
 * @param {Uint8Array} bytes the file
 * @returns {{width: number, height: number, channels: number, pixels: Uint8Array, mark: ?object, parts: object}} pixels
 *   row by row, 1 or 3 channels, and what the wic-layers chunk holds: its mark, and all parts as bytes
 */
async function decodePng(bytes) {
  if (SIGNATURE.some((value, index) => bytes[index] !== value)) {
    throw new Refusal("Expected a PNG as it was written; lossy compression destroys what a picture holds.");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const data = [];
  let header = null, palette = null, transparency = null, parts = null, place = 8, ended = false;
  while (!ended && place + 12 <= bytes.length) {
    const length = view.getUint32(place);
    const type = String.fromCharCode(...bytes.subarray(place + 4, place + 8));
    const content = bytes.subarray(place + 8, place + 8 + length);
    if (type === "IHDR") header = content;
    else if (type === "PLTE") palette = content;
    else if (type === "tRNS") transparency = content;
    else if (type === "IDAT") data.push(content);
    else if (type === "wiCl" && parts !== null) throw new Refusal("The PNG has two wic-layers chunks.");
    else if (type === "wiCl") parts = readParts(content);
    ended = type === "IEND";
    place += 12 + length;
  }
  if (!ended || header === null) throw new Refusal("The PNG is damaged or cut short.");
  const width = view.getUint32(16), height = view.getUint32(20);
  const [depth, kind, , , interlaced] = header.subarray(8);
  if (depth !== 8 || interlaced) {
    throw new Refusal("Expected a PNG of 8 bits that is not interlaced, as it was written.");
  }
  const stored = CHANNELS[kind];
  if (!width || !height || !stored) throw new Refusal("The PNG is damaged or cut short.");
  if (width * height > MOST_PIXELS) {
    throw new Refusal(`The picture is ${width}x${height}; this page takes up to ${MOST_PIXELS / 1e6} megapixels.`);
  }
  const raw = await inflate(data, height * (1 + width * stored))
    .catch(() => { throw new Refusal("The PNG is damaged: its pixels cannot be unpacked."); });
  const rows = unfilter(raw, width * stored, height, stored);
  // what a viewer shows of a picture that is marked says nothing about its pixels
  const pixels = plain(rows, kind, palette, transparency, parts !== null);
  return {width, height, mark: parts && readMark(parts.mark), parts: parts ?? {}, ...pixels};
}

/** The parts of a chunk that are known, by name, as wic_layers/codec/parts.py says them. */
function readParts(content) {
  const damaged = () => new Refusal("The wic-layers chunk of the PNG is damaged.");
  if (content[0] !== FORMAT) {
    throw new Refusal(`The picture's wic-layers chunk is not of format ${FORMAT}, the one known to this page.`);
  }
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const parts = {}, names = new Set();
  for (let place = 1; place < content.length;) {
    const [required, version, length] = content.subarray(place, place + 3);
    const begin = place + 3 + length;
    if (begin + 4 > content.length || required > 1) throw damaged();
    const name = new TextDecoder("latin1").decode(content.subarray(place + 3, begin));
    const end = begin + 4 + view.getUint32(begin);
    if (!/^[a-z][a-z0-9-]{0,31}$/.test(name) || names.has(name) || names.size === 16 || end > content.length) {
      throw damaged();
    }
    names.add(name);
    if (Object.hasOwn(VERSIONS, name) && VERSIONS[name] === version) parts[name] = content.subarray(begin + 4, end);
    else if (required) {
      throw new Refusal(`The picture's wic-layers chunk holds ${name} of version ${version}, without which nothing can ` +
        "come back and which this page does not know.");
    }
    place = end;
  }
  if (!parts.mark) throw damaged();
  return parts;
}

/** The content of a chunk with parts that must be known, by name. */
function writeParts(parts) {
  const bytes = [FORMAT];
  for (const [name, content] of Object.entries(parts)) {
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, content.length);
    bytes.push(1, VERSIONS[name], name.length, ...new TextEncoder().encode(name), ...length, ...content);
  }
  return new Uint8Array(bytes);
}

function readMark(content) {
  try {
    return JSON.parse(new TextDecoder().decode(content));
  } catch {
    throw new Refusal("The wic-layers chunk of the PNG is damaged.");
  }
}

/** Undoes the filters of PNG, which predict a byte from its left, upper and upper left neighbours. */
function unfilter(raw, stride, height, step) {
  if (raw.length < (stride + 1) * height) throw new Refusal("The PNG is damaged: it has too few pixels.");
  const out = new Uint8Array(stride * height);
  for (let row = 0; row < height; row++) {
    const filter = raw[row * (stride + 1)];
    const from = row * (stride + 1) + 1, to = row * stride;
    for (let column = 0; column < stride; column++) {
      const left = column >= step ? out[to + column - step] : 0;
      const up = row ? out[to + column - stride] : 0;
      const corner = row && column >= step ? out[to + column - stride - step] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = up;
      else if (filter === 3) guess = (left + up) >> 1;
      else if (filter === 4) {
        const a = Math.abs(up - corner), b = Math.abs(left - corner), c = Math.abs(left + up - 2 * corner);
        guess = a <= b && a <= c ? left : b <= c ? up : corner;
      }
      out[to + column] = raw[from + column] + guess;
    }
  }
  return out;
}

/** Grey or RGB from what is stored: palettes are looked up, alpha is left out, or must be opaque. */
function plain(rows, kind, palette, transparency, leaveOut) {
  const refuse = () => {
    if (!leaveOut) throw new Refusal("The PNG is partly transparent; expected it as it was written.");
  };
  if (transparency !== null && (kind !== 3 || transparency.some((alpha) => alpha < 255))) refuse();
  if (kind === 0 || kind === 2) return {channels: CHANNELS[kind], pixels: rows};
  const stored = CHANNELS[kind], channels = kind === 4 ? 1 : 3;
  const pixels = new Uint8Array(rows.length / stored * channels);
  for (let index = 0; index * stored < rows.length; index++) {
    const at = index * stored;
    if (kind !== 3 && rows[at + channels] < 255) refuse();
    for (let channel = 0; channel < channels; channel++) {
      pixels[index * channels + channel] = kind === 3 ? palette[3 * rows[at] + channel] : rows[at + channel];
    }
  }
  return {channels, pixels};
}

/**
 * Writes an 8-bit PNG: grey or RGB, with opacity where there is one.
 * @param {object} image the picture; its mark, where there is one, goes into a wic-layers chunk
 * @returns {Promise<Blob>} the file
 */
async function encodePng({width, height, channels = 3, pixels, alpha = null, mark = null}) {
  const step = channels + (alpha ? 1 : 0), stride = step * width + 1;
  const raw = new Uint8Array(stride * height);
  for (let row = 0; row < height; row++) {
    if (!alpha) raw.set(pixels.subarray(step * width * row, step * width * (row + 1)), stride * row + 1);
    for (let column = 0; alpha && column < width; column++) {
      const index = row * width + column, to = stride * row + 1 + step * column;
      raw.set(pixels.subarray(channels * index, channels * (index + 1)), to);
      raw[to + channels] = alpha[index];
    }
  }
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, (channels === 3 ? 2 : 0) + (alpha ? 4 : 0), 0, 0, 0], 8);
  const data = await through(new CompressionStream("deflate"), raw);
  const own = mark === null ? [] : [["wiCl", writeParts({mark: new TextEncoder().encode(JSON.stringify(mark))})]];
  const chunks = [["IHDR", header], ...own, ["IDAT", data], ["IEND", new Uint8Array()]]
    .map(([type, body]) => chunk(type, body));
  return new Blob([new Uint8Array(SIGNATURE), ...chunks], {type: "image/png"});
}

function chunk(type, body) {
  const bytes = new Uint8Array(body.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, body.length);
  bytes.set([...type].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(body, 8);
  view.setUint32(body.length + 8, checksum(bytes.subarray(4, body.length + 8)));
  return bytes;
}

const TABLE = Uint32Array.from({length: 256}, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** CRC-32, as PNG has it. */
function checksum(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/**
 * The 16 hex digits that a mark holds of its picture's pixels, or null where the browser gives no SHA-256 (pages that
 * come neither from this machine nor by https).
 */
async function digest({width, height, channels, pixels}) {
  if (!globalThis.crypto?.subtle) return null;
  const planes = new Uint8Array(pixels.length); // the mark's are channel by channel
  for (let index = 0; index < width * height; index++) {
    for (let channel = 0; channel < channels; channel++) {
      planes[channel * width * height + index] = pixels[index * channels + channel];
    }
  }
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", planes));
  return [...hash.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Reads the metadata of an ONNX file: field 14 of the model, key (1) and value (2) in each.
 * @param {Uint8Array} bytes the file
 * @returns {Object<string, string>} metadata
 */
function readMetadata(bytes) {
  const found = {};
  for (const [field, content] of fields(bytes)) {
    if (field === 14 && content) {
      const pair = Object.fromEntries(fields(content));
      found[new TextDecoder().decode(pair[1])] = new TextDecoder().decode(pair[2] ?? new Uint8Array());
    }
  }
  return found;
}

/** The fields of a protocol buffer: their numbers, and the bytes of those that have a length. */
function* fields(bytes) {
  let place = 0;
  const number = () => {
    let value = 0, scale = 1, byte;
    do {
      if (place >= bytes.length) throw new Refusal("The network is no ONNX file, or is cut short.");
      byte = bytes[place++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte & 128);
    return value;
  };
  while (place < bytes.length) {
    const tag = number();
    const kind = tag % 8, field = Math.floor(tag / 8);
    if (kind === 0) number();
    else if (kind === 1) place += 8;
    else if (kind === 5) place += 4;
    else if (kind === 2) {
      const length = number();
      if (place + length > bytes.length) throw new Refusal("The network is no ONNX file, or is cut short.");
      yield [field, bytes.subarray(place, place + length)];
      place += length;
    } else throw new Refusal("The network is no ONNX file, or is cut short.");
  }
}

if (typeof module !== "undefined") {
  module.exports = {Refusal, decodePng, digest, encodePng, readMetadata};
}
