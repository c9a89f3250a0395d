// Lines over time: what was drawn moves left by whole pixels, and only what is new is drawn upon it.

import { Layer } from "/static/layer.js";

const HOLE_S = 0.25;  // No line is drawn over a time of which nothing is known.

export class Strip extends Layer {
  forget() {
    this.look = "";
  }

  draw(plot, now, lines) {
    // Lines from the uppermost down: their rows of time and values, the value's place, colour, width and dashes.
    const { x_range: x, y_range: y } = plot, { pen, canvas } = this, fine = this.size();
    const scale = canvas.width / (x.end - x.start), head = Math.floor(now * scale), moved = head - this.head;
    const look = JSON.stringify([this.told, fine, y.start, y.end, lines.map(({ colour }) => colour)]);
    pen.setTransform(1, 0, 0, 1, 0, 0);
    if (look !== this.look || moved < 0 || moved >= canvas.width) {
      this.look = look;
      this.drawn = lines.map(() => ({ last: null, length: 0 }));
      pen.clearRect(0, 0, canvas.width, canvas.height);
    } else if (moved) {
      pen.globalCompositeOperation = "copy";
      pen.drawImage(canvas, -moved, 0);
    }
    this.head = head;
    pen.lineCap = pen.lineJoin = "round";
    const along = canvas.height / (y.end - y.start);
    for (const [k, { rows, at, colour, width, dash }] of lines.entries()) {
      pen.globalCompositeOperation = k ? "destination-over" : "source-over";
      pen.strokeStyle = colour;
      pen.lineWidth = width * fine;
      pen.setLineDash(dash.map((pixels) => pixels * fine));
      this.extend(this.drawn[k], rows, (row) => [(row[0] - x.start) * scale - head, (y.end - row[at]) * along], at);
    }
    pen.globalCompositeOperation = "source-over";
  }

  extend(drawn, rows, place, at) {
    // Go on where the line was left.
    const { pen } = this, from = rows.lastIndexOf(drawn.last);
    if (from === rows.length - 1) return;
    pen.lineDashOffset = drawn.length;
    pen.beginPath();
    let before = null, end = null;
    for (const row of from < 0 ? rows : rows.slice(from)) {
      const isGoingOn = before !== null && row[0] - before[0] <= HOLE_S;
      before = row[at] == null ? null : row;
      if (before === null) continue;
      const begin = end;
      end = place(row);
      if (isGoingOn) {
        pen.lineTo(...end);
        drawn.length += Math.hypot(end[0] - begin[0], end[1] - begin[1]);
      } else pen.moveTo(...end);
    }
    pen.stroke();
    drawn.last = rows.at(-1);
  }
}
