import { starter } from "./shelf";

export const best: string = starter().thickest().title;
