// A canvas upon a figure's frame, for what moves at every picture: Bokeh would draw, and measure, all of a figure anew.

const FINEST = 2;  // Pixels of a canvas to one of the page, at most.

export class Layer {
  constructor(place, view) {
    this.view = view;
    this.canvas = document.createElement("canvas");
    this.pen = this.canvas.getContext("2d");
    this.told = "";
    place.append(this.canvas);
  }

  get box() {
    const { left, top, width, height } = this.view.frame.bbox;
    return { left, top, width, height };
  }

  get isMoved() {
    return this.told !== JSON.stringify(this.box);
  }

  fit(box) {
    // Lay it upon the frame, where that has moved.
    const told = JSON.stringify(box);
    if (told === this.told) return;
    this.told = told;
    for (const [name, pixels] of Object.entries(box)) this.canvas.style[name] = `${pixels}px`;
  }

  size() {
    // Fit it, with as many pixels as the screen has; return how many to one of the page.
    const { box } = this, fine = Math.min(FINEST, devicePixelRatio);
    this.fit(box);
    const width = Math.round(box.width * fine), height = Math.round(box.height * fine);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    return fine;
  }

  begin({ x_range: x, y_range: y }) {
    // Wipe it; return a function from the plot's coordinates to pixels of the page.
    const fine = this.size(), width = this.canvas.width / fine, height = this.canvas.height / fine;
    this.pen.setTransform(fine, 0, 0, fine, 0, 0);
    this.pen.clearRect(0, 0, width, height);
    const across = width / (x.end - x.start), along = height / (y.end - y.start);
    return (at) => [(at[0] - x.start) * across, (y.end - at[1]) * along];
  }

  line(points, colour, width) {
    // Draw through points in pixels.
    const { pen } = this;
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.lineJoin = "round";
    pen.beginPath();
    for (const point of points) pen.lineTo(...point);
    pen.stroke();
  }

  circle([x, y], radius, colour, width = 0) {
    // A ring of that width; 0 fills it.
    const { pen } = this;
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fillStyle = pen.strokeStyle = colour;
    pen.lineWidth = width;
    if (width) pen.stroke();
    else pen.fill();
  }

  image(pixels, width, height) {
    // Show a picture, stretched over the frame; where it has more rows than that, none is left out.
    const { canvas, pen, box } = this;
    this.fit(box);
    if (this.picture?.width !== width || this.picture.height !== height) {
      Object.assign(canvas, { width, height });
      this.picture = pen.createImageData(width, height);
      this.words = new Uint32Array(this.picture.data.buffer);
    }
    canvas.classList.toggle("coarse", box.height * devicePixelRatio >= height);
    this.words.set(pixels);
    pen.putImageData(this.picture, 0, 0);
  }
}
