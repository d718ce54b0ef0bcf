/** Something to read. */
export interface Readable {
  title: string;
  pages(): number;
}

export class Book implements Readable {
  constructor(
    public title: string,
    private readonly sheets: number,
  ) {}

  pages(): number {
    return this.sheets * 2;
  }
}

export const EMPTY: Readable = { title: "ohne Titel ☃", pages: () => 0 };
