// What the page does with the files that it is given.
"use strict";

const VERSION = "1.30.0";
const ELSEWHERE = `https://cdn.jsdelivr.net/npm/onnxruntime-web@${VERSION}/dist/`;
const HERE = "vendor/"; // a copy of the runtime beside the page is preferred
// every file of it is checked, wherever it is from
const RUNTIME = {
  "ort.wasm.min.js": "sha384-Bw6URI+Gvoadw0do7/QrSHUC9D1vCYYK5OSqChFyhyV5mzPL4oe2rOAFljAnS8Sq",
  "ort-wasm-simd-threaded.mjs": "sha384-XcXA/MtAf0WpB8e023xQH9CM7RIjiugakT7x99DIwpFf7k56BIFFcAPerIF7FDad",
  "ort-wasm-simd-threaded.wasm": "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
};

const say = (text, kind = "") => {
  const status = document.getElementById("status");
  status.textContent = text;
  status.className = kind;
};

/** Fetches a file of the runtime, which the browser refuses if its hash is another one. */
async function fetched(folder, name) {
  const response = await fetch(folder + name, {integrity: RUNTIME[name], credentials: "omit"});
  if (!response.ok) throw new Error(response.statusText);
  const type = name.endsWith(".wasm") ? "application/wasm" : "text/javascript";
  return URL.createObjectURL(new Blob([await response.arrayBuffer()], {type}));
}

async function load(folder) {
  const [source, mjs, wasm] = await Promise.all(Object.keys(RUNTIME).map((name) => fetched(folder, name)));
  await new Promise((resolve, reject) => {
    const script = document.createElement("script");
    Object.assign(script, {src: source, onload: resolve, onerror: reject});
    document.head.append(script);
  });
  ort.env.wasm.wasmPaths = {mjs, wasm};
  ort.env.wasm.proxy = true; // in a worker, so that the page stays alive
}

let started = null;

/** Loads onnxruntime-web, once. */
function runtime() {
  if (started === null) {
    // browsers load no modules from a disk, and the runtime's copy would be one
    const first = location.protocol === "file:" ? Promise.reject() : load(HERE);
    started = first.catch(() => load(ELSEWHERE)).catch(() => {
      started = null;
      throw new Refusal(`onnxruntime-web ${VERSION} cannot be loaded, neither from ${HERE} nor from ${ELSEWHERE}: it ` +
        "is not there, or its files are not those of that version.");
    });
  }
  return started;
}

const chosen = {network: null, picture: null};

async function take(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const isNetwork = file.name.toLowerCase().endsWith(".onnx");
  const id = isNetwork ? "network" : "picture";
  chosen[id] = {name: file.name, bytes};
  const held = new DataTransfer(); // one that was dropped shows like one that was chosen
  held.items.add(file);
  document.getElementById(id).files = held.files;
}

async function run() {
  const results = document.getElementById("results");
  for (const link of results.querySelectorAll("a")) URL.revokeObjectURL(link.href);
  results.replaceChildren();
  if (!chosen.network || !chosen.picture) {
    say(chosen.network ? "Now the picture." : "Now the network.");
    return;
  }
  say("Running ...");
  const before = performance.now();
  const picture = await decodePng(chosen.picture.bytes);
  const network = readMetadata(chosen.network.bytes);
  await check(network, picture);
  await runtime();
  const session = await ort.InferenceSession.create(chosen.network.bytes, {executionProviders: ["wasm"]});
  try {
    const images = await restore(session, network, picture, (done, all) => {
      if (all > 1) say(`Running: ${done} of ${all} tiles ...`);
    });
    const stem = chosen.picture.name.replace(/\.png$/i, "");
    for (const image of images) results.append(await shown(image, `${stem}-${image.name.replace("_", "-")}.png`));
    const seconds = ((performance.now() - before) / 1000).toFixed(1);
    const left = picture.parts.exif || picture.parts.dpi ? " Metadata that the picture carries is left out." : "";
    const note = picture.mark ? left : " The picture does not say how it was made: whether anything is in it, nobody " +
      "checked, and what came back may have a border that is padding.";
    say(`Done in ${seconds} s.${note}`, "done");
  } finally {
    await session.release();
  }
}

async function shown(image, name) {
  const figure = document.createElement("figure");
  const canvas = Object.assign(document.createElement("canvas"), {width: image.width, height: image.height});
  const context = canvas.getContext("2d");
  const data = context.createImageData(image.width, image.height);
  for (let index = 0; index < image.width * image.height; index++) {
    const [red, green = red, blue = red] = image.pixels.subarray(image.channels * index, image.channels * (index + 1));
    data.data.set([red, green, blue, image.alpha ? image.alpha[index] : 255], 4 * index);
  }
  context.putImageData(data, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", image.name.replace("_", " "));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await encodePng(image)); // not the canvas's, which may not keep every pixel
  link.download = name;
  link.textContent = `Save ${name}`;
  const caption = document.createElement("figcaption");
  caption.append(`${image.width}x${image.height} `, link);
  figure.append(canvas, caption);
  return figure;
}

let queue = Promise.resolve();

function accept(files) {
  queue = queue.then(async () => {
    for (const file of files) await take(file);
    await run();
  }).catch((error) => {
    say(error instanceof Refusal ? error.message : `This did not work: ${error?.message ?? error}`, "error");
  });
}

for (const id of ["network", "picture"]) {
  document.getElementById(id).addEventListener("change", (event) => accept([...event.target.files]));
}
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  accept([...event.dataTransfer.files]);
});
