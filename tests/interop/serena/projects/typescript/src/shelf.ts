import { Book, EMPTY, type Readable } from "./book";

export class Shelf {
  private readonly books: Readable[] = [];

  add(book: Readable): this {
    this.books.push(book);
    return this;
  }

  thickest(): Readable {
    return this.books.reduce((a, b) => (a.pages() >= b.pages() ? a : b), EMPTY);
  }
}

export function starter(): Shelf {
  return new Shelf().add(new Book("One", 10)).add(new Book("Two", 20));
}
