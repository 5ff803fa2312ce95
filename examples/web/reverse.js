// A picture through an exported network: checked as the command line checks it, in tiles where it is large, and cut to
// the sizes that its mark says.
"use strict";

const TILE = 768; // pixels of the large image that are run at once, to each side

/** Throws a sentence where a network and a picture do not belong together. */
async function check(network, picture) {
  if (!network.task) throw new Refusal("Expected a network that `wic export` wrote; this one does not say what it is.");
  if (network.direction !== "reverse") {
    throw new Refusal(`Expected a network of the way back; this one runs forward. Write it by: wic export ${
      network.preset || "WEIGHTS"} --direction reverse -o reverse.onnx`);
  }
  const mark = picture.mark;
  if (mark === null) return;
  if (mark.task !== network.task) {
    throw new Refusal(`The picture was made for ${mark.task}; this network is for ${network.task}. Take one by: wic ` +
      `export ${mark.preset ?? "WEIGHTS"} --direction reverse -o reverse.onnx`);
  }
  if (mark.weights !== network.weights) {
    throw new Refusal(`The picture was made with the weights ${mark.weights}; those of this network are ${
      network.weights || "not named"}.`);
  }
  const [width, height] = mark.pixels;
  if (width !== picture.width || height !== picture.height) {
    throw new Refusal(`The picture is ${picture.width}x${picture.height} but was written as ${width}x${height}: it ` +
      "was resized or cropped, which destroys what it holds.");
  }
  const found = await digest(asChannels(picture, network.task === "decolorization" ? 1 : 3));
  if (found !== null && found !== mark.digest) {
    throw new Refusal("The pixels of the picture are not those that were written: it was edited or went through lossy " +
      "compression, which destroys what it holds.");
  }
}

/** The picture in as many channels as the network takes. */
function asChannels(picture, channels) {
  if (picture.channels === channels) return picture;
  const count = picture.width * picture.height;
  const pixels = new Uint8Array(count * channels);
  for (let index = 0; index < count; index++) {
    if (channels === 3) pixels.fill(picture.pixels[index], 3 * index, 3 * index + 3);
    else {
      const [red, green, blue] = picture.pixels.subarray(3 * index, 3 * index + 3);
      if (red !== green || red !== blue) throw new Refusal("Expected a grey picture; this one holds colours.");
      pixels[index] = red;
    }
  }
  return {...picture, channels, pixels};
}

/** The part of an image from left, top to right, bottom. */
function cut({width, channels, pixels}, left, top, right, bottom) {
  const out = new Uint8Array((right - left) * (bottom - top) * channels);
  for (let row = top; row < bottom; row++) {
    const start = (row * width + left) * channels;
    out.set(pixels.subarray(start, start + (right - left) * channels), (row - top) * (right - left) * channels);
  }
  return {width: right - left, height: bottom - top, channels, pixels: out};
}

/** Puts an image into another at left, top. */
function paste(into, image, left, top) {
  for (let row = 0; row < image.height; row++) {
    const start = row * image.width * 3;
    into.pixels.set(image.pixels.subarray(start, start + image.width * 3), ((top + row) * into.width + left) * 3);
  }
}

/**
 * What comes back from a picture.
 * @param {object} session of onnxruntime
 * @param {object} network its metadata
 * @param {object} picture as decodePng returns it
 * @param {function(number, number): void} progress called with the number of tiles that are done, and of all
 * @returns {Promise<Array<{name: string, width: number, height: number, channels: number, pixels: Uint8Array,
 *   alpha: ?Uint8Array}>>} RGB images, or grey ones of 1 channel
 */
async function restore(session, network, picture, progress = () => {}) {
  await check(network, picture);
  const given = asChannels(picture, session.inputMetadata[0].shape.length === 2 ? 1 : 3);
  const scale = Number(network.scale), multiple = Number(network.multiple);
  const {width, height} = given;
  const sizes = picture.mark?.sizes ?? session.outputNames.map(() => [width * scale, height * scale]);
  const fits = ([across, down]) => across >= 1 && down >= 1 && across <= width * scale && down <= height * scale;
  if (!sizes.length || sizes.length > session.outputNames.length || !sizes.every(fits)) {
    throw new Refusal(`The picture's wic-layers chunk says sizes that cannot come back from ${width}x${height}.`);
  }
  if (width % multiple || height % multiple) {
    throw new Refusal(`Expected a picture with sides divisible by ${multiple}, as it was made; got ${width}x${height}.`);
  }
  const grey = picture.mark?.grey ?? [];
  const alpha = await opacity(picture, sizes[0]);
  if (network.task === "decolorization" && grey[0]) { // the picture is the photograph
    return [{name: session.outputNames[0], ...cut(given, 0, 0, ...sizes[0]), alpha}];
  }
  const found = session.outputNames.map((name) => ({
    name, width: width * scale, height: height * scale, channels: 3,
    pixels: new Uint8Array(3 * width * height * scale * scale),
  }));
  // a tile is run with all that its pixels depend on, and only its own part is kept
  const side = TILE / scale, overlap = Number(network.overlap) / scale;
  const whole = width * height * scale * scale <= (TILE + 2 * overlap * scale) ** 2;
  const [across, down] = whole ? [width, height] : [side, side];
  const corners = [];
  for (let top = 0; top < height; top += down) {
    for (let left = 0; left < width; left += across) corners.push([left, top]);
  }
  for (const [index, [left, top]] of corners.entries()) {
    const right = Math.min(left + across, width), bottom = Math.min(top + down, height);
    const from = whole ? [0, 0] : [Math.max(left - overlap, 0), Math.max(top - overlap, 0)];
    const piece = cut(given, ...from, Math.min(right + (whole ? 0 : overlap), width),
      Math.min(bottom + (whole ? 0 : overlap), height));
    const shape = given.channels === 1 ? [piece.height, piece.width] : [piece.height, piece.width, 3];
    const results = await session.run({[session.inputNames[0]]: new ort.Tensor("uint8", piece.pixels, shape)});
    for (const image of found) {
      const result = {
        width: piece.width * scale, height: piece.height * scale, channels: 3, pixels: results[image.name].data,
      };
      const [x, y] = [(left - from[0]) * scale, (top - from[1]) * scale];
      paste(image, cut(result, x, y, x + (right - left) * scale, y + (bottom - top) * scale), left * scale, top * scale);
    }
    progress(index + 1, corners.length);
    await new Promise((resolve) => setTimeout(resolve)); // the page stays alive
  }
  // a clip may be short of frames
  return found.slice(0, sizes.length).map((image, index) => {
    const own = cut(image, 0, 0, ...sizes[index]);
    return {name: image.name, ...(grey[index] ? mean(own) : own), alpha};
  });
}

/** How opaque the photograph is, of a picture whose chunk says it. */
async function opacity(picture, [width, height]) {
  if (!picture.parts?.alpha) return null;
  const image = await decodePng(picture.parts.alpha);
  if (image.channels !== 1 || image.width !== width || image.height !== height) {
    throw new Refusal("The wic-layers chunk of the PNG is damaged.");
  }
  return image.pixels;
}

/** The mean of three channels as one, of what came back of a grey image. */
function mean({width, height, pixels}) {
  const one = new Uint8Array(width * height);
  for (let index = 0; index < one.length; index++) {
    const total = pixels[3 * index] + pixels[3 * index + 1] + pixels[3 * index + 2];
    one[index] = Math.round(total / 3);
  }
  return {width, height, channels: 1, pixels: one};
}

if (typeof module !== "undefined") {
  Object.assign(globalThis, require("./pictures.js"));
  module.exports = {restore};
}
