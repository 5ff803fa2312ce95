// What both pages show: messages, pictures, and links that save them.
"use strict";

const say = (text, kind = "") => {
  const status = document.getElementById("status");
  status.textContent = text;
  status.className = kind;
};

/** A picture on a canvas. */
function drawn(image, label) {
  const canvas = Object.assign(document.createElement("canvas"), {width: image.width, height: image.height});
  const context = canvas.getContext("2d");
  const data = context.createImageData(image.width, image.height);
  for (let index = 0; index < image.width * image.height; index++) {
    const [red, green = red, blue = red] = image.pixels.subarray(image.channels * index, image.channels * (index + 1));
    data.data.set([red, green, blue, image.alpha ? image.alpha[index] : 255], 4 * index);
  }
  context.putImageData(data, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
}

/** A link that saves a file. */
function saving(blob, name) {
  return Object.assign(document.createElement("a"), {
    href: URL.createObjectURL(blob), download: name, textContent: `Save ${name}`,
  });
}
