// @ts-check
// Where the tasks of a graph lie: columns by wave, rows so that few edges cross.
//
// An edge over several columns goes through a place of its own in each of them, so that it does
// not run behind other tasks; the order within a column is by the mean of the neighbours'
// places (the barycentre), swept to and fro.

const SWEEPS = 6;
const MOST_JOINTS = 4000; // beyond, long edges go straight

/** @typedef {{id: string, wave: number, needs: string[]}} Item */
/** @typedef {{width: number, height: number, gapX: number, gapY: number, joint: number}} Sizes px */
/** @typedef {{id: string, x: number, y: number, column: number}} Spot */
/** @typedef {{from: string, to: string, path: string}} Edge */
/** @typedef {{spots: Map<string, Spot>, edges: Edge[], width: number, height: number,
 *   columns: number[]}} Layout columns: the x of each */

/** @param {Item[]} items @param {Sizes} sizes @returns {Layout} */
export function layOut(items, sizes) {
  const graph = new Graph(items);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) graph.sweep(sweep % 2 === 0);
  return place(graph, sizes);
}

/** @typedef {{id: string, isJoint: boolean, left: Cell[], right: Cell[], at: number, y: number}} Cell
 *   left, right: its neighbours in the columns beside it */

class Graph {
  /** @param {Item[]} items */
  constructor(items) {
    const waves = [...new Set(items.map((item) => item.wave))].sort((one, other) => one - other);
    const columnOf = new Map(waves.map((wave, at) => [wave, at]));
    /** @type {Cell[][]} */
    this.columns = waves.map(() => []);
    /** @type {Map<string, number>} */
    this.column = new Map(items.map((item) => [item.id, columnOf.get(item.wave) ?? 0]));
    /** @type {Map<string, Cell>} */
    this.cells = new Map();
    for (const item of items) this.cells.set(item.id, this.add(item.id, this.columnOf(item.id), false));
    /** @type {Cell[][]} each edge as the cells it goes through */
    this.chains = this.chain(items);
    this.number();
  }

  /** @param {string} id */
  columnOf(id) {
    return this.column.get(id) ?? 0;
  }

  /** @param {string} id @param {number} column @param {boolean} isJoint @returns {Cell} */
  add(id, column, isJoint) {
    const cell = { id, isJoint, left: [], right: [], at: 0, y: 0 };
    this.columns[column].push(cell);
    return cell;
  }

  /** @param {Item[]} items */
  chain(items) {
    const pairs = items.flatMap((item) => item.needs.filter((need) => this.cells.has(need)).map((need) => [need, item.id]));
    const joints = pairs.reduce((sum, [from, to]) => sum + Math.max(0, this.columnOf(to) - this.columnOf(from) - 1), 0);
    return pairs.map(([from, to]) => this.link(from, to, joints <= MOST_JOINTS));
  }

  /** @param {string} from @param {string} to @param {boolean} hasJoints */
  link(from, to, hasJoints) {
    const chain = [/** @type {Cell} */ (this.cells.get(from))];
    for (let column = this.columnOf(from) + 1; hasJoints && column < this.columnOf(to); column += 1) {
      chain.push(this.add("", column, true));
    }
    chain.push(/** @type {Cell} */ (this.cells.get(to)));
    for (let at = 1; at < chain.length; at += 1) {
      chain[at - 1].right.push(chain[at]);
      chain[at].left.push(chain[at - 1]);
    }
    return chain;
  }

  number() {
    for (const column of this.columns) column.forEach((cell, at) => { cell.at = at / column.length; });
  }

  /** @param {boolean} isForward */
  sweep(isForward) {
    const columns = isForward ? this.columns : [...this.columns].reverse();
    for (const column of columns) {
      const means = new Map(column.map((cell) => [cell, mean(isForward ? cell.left : cell.right, cell.at)]));
      column.sort((one, other) => (means.get(one) ?? 0) - (means.get(other) ?? 0)); // a stable sort
      column.forEach((cell, at) => { cell.at = (at + 0.5) / column.length; });
    }
  }
}

/** @param {Cell[]} cells @param {number} otherwise */
function mean(cells, otherwise) {
  return cells.length ? cells.reduce((sum, cell) => sum + cell.at, 0) / cells.length : otherwise;
}

/** @param {Graph} graph @param {Sizes} sizes @returns {Layout} */
function place(graph, sizes) {
  const heights = graph.columns.map((column) => column.reduce((sum, cell) => sum + tall(cell, sizes), -sizes.gapY));
  const height = Math.max(0, ...heights);
  const columns = graph.columns.map((_, at) => at * (sizes.width + sizes.gapX));
  /** @type {Map<string, Spot>} */
  const spots = new Map();
  graph.columns.forEach((column, at) => {
    let y = (height - heights[at]) / 2;
    for (const cell of column) {
      cell.y = y + (tall(cell, sizes) - sizes.gapY) / 2;
      if (!cell.isJoint) spots.set(cell.id, { id: cell.id, x: columns[at], y, column: at });
      y += tall(cell, sizes);
    }
  });
  const edges = graph.chains.map((chain) => edgeOf(chain, graph, columns, sizes));
  return { spots, edges, columns, height, width: columns.length ? columns[columns.length - 1] + sizes.width : 0 };
}

/** @param {Cell} cell @param {Sizes} sizes */
const tall = (cell, sizes) => (cell.isJoint ? sizes.joint : sizes.height) + sizes.gapY;

/** From the right side of one task to the left side of the other, level through the columns
 * between. @param {Cell[]} chain @param {Graph} graph @param {number[]} columns @param {Sizes} sizes
 * @returns {Edge} */
function edgeOf(chain, graph, columns, sizes) {
  const [first, last] = [chain[0], chain[chain.length - 1]];
  const begin = graph.columnOf(first.id);
  let x = columns[begin] + sizes.width;
  let path = `M${round(x)} ${round(first.y)}`;
  chain.slice(1).forEach((cell, at) => {
    const left = columns[cell.isJoint ? begin + at + 1 : graph.columnOf(cell.id)];
    path += curve(x, chain[at].y, left, cell.y);
    x = left;
    if (!cell.isJoint) return;
    x = left + sizes.width;
    path += `H${round(x)}`;
  });
  return { from: first.id, to: last.id, path };
}

/** @param {number} x @param {number} y @param {number} toX @param {number} toY */
function curve(x, y, toX, toY) {
  const middle = (x + toX) / 2;
  return `C${round(middle)} ${round(y)} ${round(middle)} ${round(toY)} ${round(toX)} ${round(toY)}`;
}

/** @param {number} value */
const round = (value) => Math.round(value * 10) / 10;
