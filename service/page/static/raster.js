// The raster's picture: counts of the last columns, one pixel each; only what is new is painted.

export const N_COLUMNS = 500;
const HEAD_BYTES = 16;
const MARKS = { light: [[27, 36, 48], [208, 33, 63], [200, 120, 0], [122, 63, 192]],
                dark: [[214, 228, 245], [255, 90, 110], [255, 179, 92], [199, 155, 255]] };
const FAINT = 46;

export class Raster {
  constructor() {
    this.nRows = 0;
    this.marks = [];
    this.isChanged = false;
    this.setTheme("light");
  }

  setTheme(theme) {
    // One colour for each mark and count: little-endian ABGR.
    this.colours = MARKS[theme].map(([r, g, b], mark) => {
      const of = new Uint32Array(256);
      for (let n = 0; n < 256; n++) {
        const alpha = n === 0 ? (mark ? FAINT : 0) : Math.min(255, 130 + 60 * n);
        of[n] = ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
      }
      return of;
    });
    this.paintAll();
  }

  setRows(labels, marks) {
    this.labels = labels;
    this.marks = marks;
    this.paintAll();
  }

  paintAll() {
    this.painted = -Infinity;
    this.isChanged = true;
  }

  forget() {
    this.nRows = 0;
  }

  take(buffer) {
    const [, first, nColumns, nRows] = new Uint32Array(buffer, 0, 4);
    if (nRows !== this.nRows) {
      this.nRows = nRows;
      this.counts = new Uint8Array(N_COLUMNS * nRows);
      this.pixels = new Uint32Array(N_COLUMNS * nRows);
      this.newest = first;
      this.touched = first;
      this.paintAll();
    }
    const columns = new Uint8Array(buffer, HEAD_BYTES);
    for (let i = 0; i < nColumns; i++) {
      const at = ((first + i) % N_COLUMNS) * nRows;
      this.counts.set(columns.subarray(i * nRows, (i + 1) * nRows), at);
    }
    this.newest = Math.max(this.newest, first + nColumns - 1);
    this.touched = Math.min(this.touched, first);
    this.isChanged = true;
  }

  paint() {
    // Rows from the top down, the newest column at the right.
    this.isChanged = false;
    const { counts, pixels, nRows, colours, marks, newest } = this;
    const oldest = newest + 1 - N_COLUMNS, moved = newest - this.painted;
    let from = oldest;
    if (moved < N_COLUMNS) {
      // All rows at once: what runs over from the next row is painted below.
      pixels.copyWithin(0, moved);
      from = Math.max(oldest, Math.min(this.touched, this.painted + 1));
    }
    for (let column = from; column <= newest; column++) {
      const at = ((column + N_COLUMNS) % N_COLUMNS) * nRows;
      for (let r = 0, to = column - oldest + (nRows - 1) * N_COLUMNS; r < nRows; r++, to -= N_COLUMNS)
        pixels[to] = colours[marks[r] || 0][counts[at + r]];
    }
    this.painted = newest;
    this.touched = newest + 1;
    return pixels;
  }
}
