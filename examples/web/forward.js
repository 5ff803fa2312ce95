// Images through an exported network on the way forward, to a picture with its mark, as the command line writes it.
"use strict";

const sameChannels = ({pixels}) => {
  for (let at = 0; at < pixels.length; at += 3) {
    if (pixels[at] !== pixels[at + 1] || pixels[at] !== pixels[at + 2]) return false;
  }
  return true;
};

/**
 * The picture that a network makes of images, with its mark.
 * @param {object} session of onnxruntime
 * @param {object} network its metadata
 * @param {Array<{width: number, height: number, channels: number, pixels: Uint8Array}>} images RGB, as the task has them:
 *   the cover and the secret, or the photograph
 * @returns {Promise<object>} the picture, for encodePng
 */
async function convert(session, network, images) {
  if (network.direction !== "forward") throw new Refusal("Expected a network of the way forward.");
  const hides = network.task.startsWith("hiding");
  const back = hides ? images.slice(1) : images; // what comes back of them
  if (hides && back.some(({width, height}) => width > images[0].width || height > images[0].height)) {
    throw new Refusal("Expected a secret that is no larger than the cover.");
  }
  if (network.task === "decolorization" && sameChannels(images[0])) {
    throw new Refusal("This photograph has no colours to take out.");
  }
  const feeds = Object.fromEntries(session.inputNames.map((name, index) => {
    const {width, height, pixels} = images[index];
    return [name, new ort.Tensor("uint8", pixels.slice(), [height, width, 3])]; // the runtime's worker takes it
  }));
  const {data, dims: [height, width, channels = 1]} = (await session.run(feeds))[session.outputNames[0]];
  const picture = {width, height, channels, pixels: new Uint8Array(data)};
  const own = await digest(picture);
  if (own === null) throw new Refusal("This browser computes hashes only on pages that come by https.");
  picture.mark = {
    task: network.task, preset: network.preset || null, weights: network.weights,
    sizes: back.map((image) => [image.width, image.height]), pixels: [width, height], digest: own,
    grey: back.map(sameChannels),
  };
  return picture;
}

if (typeof module !== "undefined") {
  Object.assign(globalThis, require("./pictures.js"));
  module.exports = {convert};
}
